//! The attribute on methods of types and traits.
#![deny(warnings)]

#[path = "support/mod.rs"]
mod support;

use std::pin::Pin;
use std::sync::Arc;

use journey_layer::tracing::Span;
use journey_layer::{journey_event, journey_span};

#[derive(Clone)]
struct Engine<T> {
    id: String,
    queue: Vec<T>,
    span: Span,
}

impl<T: Clone + Send + Sync> Engine<T> {
    #[journey_span(scope = "vllm.api")]
    fn new(id: &str) -> Self {
        Self { id: id.to_owned(), queue: Vec::new(), span: Span::current() }
    }

    #[journey_span(scope = "vllm.api", request_id = self.id)]
    fn by_reference(&self) -> Option<&T> {
        self.queue.first()
    }

    #[journey_span(scope = "vllm.api", request_id = %self.id, parent = &self.span)]
    fn by_unique_reference(&mut self, item: T) -> &mut T {
        self.queue.push(item);
        self.queue.last_mut().expect("it was pushed")
    }

    #[journey_span(scope = "vllm.api", request_id = %self.id, err)]
    fn reborrows(&mut self) -> Result<&mut T, String> {
        self.queue.last_mut().ok_or_else(|| "empty".to_owned())
    }

    #[journey_span(scope = "vllm.api", request_id = self.id)]
    fn by_value(mut self) -> Vec<T> {
        self.queue.reverse();
        self.queue
    }

    #[journey_span(scope = "vllm.api", request_id = self.id)]
    fn by_smart_pointer(self: &Arc<Self>) -> usize {
        self.queue.len()
    }

    #[journey_span(scope = "vllm.api", request_id = self.id)]
    async fn later(&mut self, item: &T) -> usize {
        journey_event!(ARRIVED);
        self.queue.push(item.clone());
        self.queue.len()
    }

    #[journey_span(scope = "vllm.api", request_id = self.id, err)]
    async fn later_by_value(self, fail: bool) -> Result<Self, std::fmt::Error> {
        if fail {
            return Err(std::fmt::Error);
        }
        Ok(self)
    }

    #[journey_span(scope = "vllm.api", request_id = self.id)]
    async fn pinned(self: Pin<&mut Self>) -> usize {
        self.queue.len()
    }
}

trait Model {
    const NAME: &'static str;
    type Output;

    fn forward(&self) -> Self::Output;

    #[journey_span(scope = "vllm.scheduler", name = "model_forward")]
    fn twice(&self) -> (Self::Output, Self::Output) {
        (self.forward(), self.forward())
    }
}

impl Model for u32 {
    const NAME: &'static str = "u32";
    type Output = &'static str;

    #[journey_span(scope = "vllm.scheduler", name = "model_forward")]
    fn forward(&self) -> Self::Output {
        Self::NAME
    }
}

fn main() {
    let mut engine = Engine::<u32>::new("a");
    assert_eq!(engine.by_reference(), None);
    assert_eq!(engine.reborrows().unwrap_err(), "empty");
    *engine.by_unique_reference(1) += 1;
    *engine.reborrows().expect("it has one") += 1;
    assert_eq!(support::block_on(engine.later(&5)), 2);
    assert_eq!(support::block_on(Pin::new(&mut engine).pinned()), 2);
    assert_eq!(Arc::new(engine.clone()).by_smart_pointer(), 2);
    assert!(support::block_on(engine.clone().later_by_value(true)).is_err());
    let engine = support::block_on(engine.later_by_value(false)).expect("it was told so");
    assert_eq!(engine.by_value(), [5, 3]);
    assert_eq!(7.twice(), ("u32", "u32"));
}
