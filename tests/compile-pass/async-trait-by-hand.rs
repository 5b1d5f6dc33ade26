//! The shape that `async_trait` expands to, written by hand.
#![deny(warnings)]

#[path = "support/mod.rs"]
mod support;

use std::pin::Pin;

use journey_layer::{journey_event, journey_span};
use support::{block_on, printed};

trait Engine {
    fn generate<'life0, 'life1, 'async_trait>(
        &'life0 self,
        prompt: &'life1 str,
    ) -> Pin<Box<dyn Future<Output = Result<usize, String>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait;
}

struct Local(String);

impl Engine for Local {
    #[journey_span(scope = "vllm.api", request_id = self.0, err)]
    fn generate<'life0, 'life1, 'async_trait>(
        &'life0 self,
        prompt: &'life1 str,
    ) -> Pin<Box<dyn Future<Output = Result<usize, String>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let __self = self;
            let prompt = prompt;
            let __ret: Result<usize, String> = {
                journey_event!(ARRIVED);
                if prompt.is_empty() {
                    return Err("empty".to_owned());
                }
                Ok(__self.0.len() + prompt.len())
            };
            __ret
        })
    }
}

fn main() {
    let output = printed(|| {
        let engine = Local("ab".into());
        let never_polled = engine.generate("");
        drop(never_polled);
        assert_eq!(block_on(engine.generate("cde")), Ok(5));
        assert_eq!(block_on(engine.generate("")), Err("empty".into()));
    });
    assert_eq!(output.matches(": new").count(), 2, "a future that is not polled opens no span: {output}");
    assert!(output.contains(r#"api.ABORTED reason="generation_error" error=empty"#), "{output}");
}
