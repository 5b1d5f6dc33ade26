//! OTLP-JSON: puts the pieces of each export request together again.

use std::io::Read;
use std::sync::Arc;

use super::split::{Piece, SplitError, Splitter};
use super::{At, Place, Problem, ReadError, SharedResource, SharedScope, Sink, otlp_json};
use crate::model::Span;

/// Spans that may stand before the scope or resource they belong to. Writers put those first; JSON does not make them.
const MAX_WAITING: usize = 1 << 16;

/// Reads export requests until the input ends.
pub(super) fn read(input: impl Read, file: u32, sink: &mut dyn Sink) {
    let mut splitter = Splitter::new(input);
    let mut context = Context::default();
    loop {
        let piece = splitter.next();
        let failed = match piece {
            Ok(None) => return context.end_resource(sink),
            Ok(Some(piece)) => context.take(piece, sink).map_err(|error| match error {
                // Lines are counted from the piece's own start.
                PieceError::Json(error) => (error.line().saturating_sub(1) as u32, ReadError::Json(brief(&error))),
                PieceError::Other(error) => (0, error),
            }),
            Err(SplitError::Io(error)) => {
                context.end_resource(sink);
                let at = At { file, place: Place::Line(splitter.place()) };
                return sink.problem(Problem { at, error: ReadError::Io(error) });
            }
            Err(error) => {
                if !matches!(error, SplitError::TooLarge) {
                    context.end_resource(sink);
                }
                Err((0, ReadError::Split(error.to_string())))
            }
        };
        context.place = At { file, place: Place::Line(splitter.place()) };
        match failed {
            Ok(None) => {}
            Ok(Some(span)) => sink.span(*span, context.place),
            Err((line, error)) => {
                sink.problem(Problem { at: At { file, place: Place::Line(splitter.place() + line) }, error });
            }
        }
    }
}

enum PieceError {
    Json(serde_json::Error),
    Other(ReadError),
}

impl From<serde_json::Error> for PieceError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// The resource and scope that the next span belongs to.
struct Context {
    resource: Option<SharedResource>,
    scope: Option<SharedScope>,
    /// Spans whose scope (`None`) or resource has not come yet.
    waiting: Vec<(otlp_json::JsonSpan, Option<SharedScope>, At)>,
    place: At,
}

impl Default for Context {
    fn default() -> Self {
        let place = At { file: 0, place: Place::Line(1) };
        Self { resource: None, scope: None, waiting: Vec::new(), place }
    }
}

impl Context {
    fn take(&mut self, piece: Piece<'_>, sink: &mut dyn Sink) -> Result<Option<Box<Span>>, PieceError> {
        match piece {
            Piece::Resource(bytes) => self.resource = Some(Arc::new(otlp_json::resource(bytes)?)),
            Piece::Scope(bytes) => self.scope = Some(Arc::new(otlp_json::scope(bytes)?)),
            Piece::Span(bytes) => {
                let span = otlp_json::span(bytes)?;
                if let (Some(resource), Some(scope)) = (&self.resource, &self.scope) {
                    return Ok(Some(Box::new(span.into_span(resource.clone(), scope.clone()))));
                }
                if self.waiting.len() >= MAX_WAITING {
                    self.end_resource(sink);
                    return Err(PieceError::Other(ReadError::ScopeTooLate));
                }
                self.waiting.push((span, self.scope.clone(), self.place));
            }
            Piece::EndScopeSpans => {
                let scope = self.scope.take().unwrap_or_default();
                for (_, of, _) in self.waiting.iter_mut().filter(|(_, of, _)| of.is_none()) {
                    *of = Some(scope.clone());
                }
                if self.resource.is_some() {
                    self.flush(sink);
                }
            }
            Piece::EndResourceSpans => self.end_resource(sink),
            Piece::EndDocument { recognised: true } => {}
            Piece::EndDocument { recognised: false } => return Err(PieceError::Other(ReadError::NotATrace)),
        }
        Ok(None)
    }

    fn end_resource(&mut self, sink: &mut dyn Sink) {
        self.flush(sink);
        self.resource = None;
        self.scope = None;
    }

    fn flush(&mut self, sink: &mut dyn Sink) {
        let resource = self.resource.clone().unwrap_or_default();
        let last = self.scope.clone().unwrap_or_default();
        for (span, scope, at) in self.waiting.drain(..) {
            sink.span(span.into_span(resource.clone(), scope.unwrap_or_else(|| last.clone())), at);
        }
    }
}

/// The error without the position, which is the piece's own, and without the megabytes that the input may have put into it.
fn brief(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let mut brief: String = text.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if brief.len() < text.len() {
        brief.push('…');
    }
    brief
}
