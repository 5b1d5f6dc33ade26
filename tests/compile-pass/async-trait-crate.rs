//! The attribute on methods that `async_trait` rewrites.
#![deny(warnings)]

#[path = "support/mod.rs"]
mod support;

use async_trait::async_trait;
use journey_layer::tracing::Span;
use journey_layer::{journey_event, journey_span};
use support::{block_on, printed};

#[async_trait]
trait Engine {
    async fn generate(&self, prompt: &str) -> Result<String, std::fmt::Error>;

    #[journey_span(scope = "vllm.api")]
    async fn provided(&mut self, prompt: String) -> usize
    where
        Self: Send,
    {
        journey_event!(ARRIVED);
        prompt.len() + self.generate(&prompt).await.map_or(0, |text| text.len())
    }
}

struct Local {
    id: String,
}

#[async_trait]
impl Engine for Local {
    #[journey_span(scope = "vllm.scheduler", request_id = self.id, err)]
    async fn generate(&self, prompt: &str) -> Result<String, std::fmt::Error> {
        std::future::ready(()).await;
        assert_eq!(Span::current().metadata().map(|metadata| metadata.name()), Some("llm_core"));
        if prompt.is_empty() {
            return Err(std::fmt::Error);
        }
        Ok(prompt.repeat(2))
    }
}

#[async_trait(?Send)]
trait Here {
    #[journey_span(scope = "vllm.api")]
    async fn here(&self) -> std::rc::Rc<u32> {
        std::rc::Rc::new(1)
    }
}

impl Here for Local {}

fn main() {
    let output = printed(|| {
        let mut engine: Box<dyn Engine + Send> = Box::new(Local { id: "core-1".into() });
        assert_eq!(block_on(engine.provided("ab".into())), 6);
        assert!(block_on(engine.generate("")).is_err());
        assert_eq!(*block_on(Local { id: String::new() }.here()), 1);
    });
    assert!(output.contains(r#"llm_request:llm_core{gen_ai.request.id="core-1"}"#), "{output}");
    assert!(output.contains(r#"finish.status="error""#), "{output}");
}
