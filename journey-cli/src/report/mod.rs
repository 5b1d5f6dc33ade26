//! `journey report`: where the time of requests went.

mod assemble;
mod html;
mod perfetto;
mod stats;
mod steps;
mod text;
mod timeline;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use journey_schema::SpanName;

use assemble::Assembler;
use perfetto::Perfetto;
pub use stats::{Distribution, Measure, Stats};
pub use steps::Steps;
pub use timeline::Timeline;

use crate::check::Dialects;
use crate::link::LinkTemplate;
use crate::model::Span;
use crate::read::{At, Problem, Sink};

/// Problems of reading that are told in full.
const MAX_PROBLEMS: usize = 20;

/// Journeys of which the page shows a waterfall: half of them the slowest, half a sample of the others.
const PAGE_JOURNEYS: usize = 1_000;

/// What to make.
#[derive(Debug)]
pub struct Options {
    /// Slowest journeys to list.
    pub slowest: usize,
    /// Journeys to keep open while their spans are not all here.
    pub max_open: usize,
    /// The page.
    pub html: Option<PathBuf>,
    /// The trace for ui.perfetto.dev.
    pub perfetto: Option<PathBuf>,
    /// A link to each journey in the user's own backend.
    pub link: Option<LinkTemplate>,
}

/// Why an output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct OutputError {
    path: PathBuf,
    source: io::Error,
}

/// Takes in spans and gives out a report.
#[derive(Debug)]
pub struct Report {
    options: Options,
    /// Files read, as the user named them.
    files: Vec<String>,
    spans: u64,
    foreign: u64,
    assembler: Assembler,
    stats: Stats,
    steps: Steps,
    problems: Vec<Problem>,
    problem_count: u64,
    perfetto: Option<Perfetto<BufWriter<File>>>,
    /// Step spans under any name that an engine is known to give them.
    dialects: Dialects,
}

impl Report {
    /// Opens the outputs, so that a path that cannot be written is known before hours of reading.
    ///
    /// # Errors
    /// An output file cannot be created.
    pub fn new(options: Options, files: Vec<String>) -> Result<Self, OutputError> {
        let (html, perfetto) = (&options.html, &options.perfetto);
        if let Some(path) = html {
            may_replace(path, html::BEGINNING)
                .and_then(|()| OpenOptions::new().write(true).create(true).truncate(false).open(path))
                .map_err(|source| OutputError { path: path.clone(), source })?;
        }
        let perfetto = match perfetto {
            Some(path) => {
                let created = match html.as_ref() == Some(path) {
                    true => Err(io::Error::other("it is to be the page, and cannot be both")),
                    false => may_replace(path, perfetto::BEGINNING).and_then(|()| File::create(path)),
                };
                let perfetto = created.and_then(|file| Perfetto::new(BufWriter::new(file)));
                Some(perfetto.map_err(|source| OutputError { path: path.clone(), source })?)
            }
            None => None,
        };
        Ok(Self {
            assembler: Assembler::new(options.max_open),
            options,
            files,
            spans: 0,
            foreign: 0,
            stats: Stats::default(),
            steps: Steps::default(),
            problems: Vec::new(),
            problem_count: 0,
            perfetto,
            dialects: Dialects::all(),
        })
    }

    /// The page, and the end of the trace.
    fn write_files(&mut self) -> Result<(), OutputError> {
        if let Some(path) = &self.options.html {
            let written = File::create(path).and_then(|file| {
                let mut file = BufWriter::new(file);
                file.write_all(html::page(self).as_bytes())?;
                file.flush()
            });
            written.map_err(|source| OutputError { path: path.clone(), source })?;
        }
        if let (Some(perfetto), Some(path)) = (self.perfetto.take(), &self.options.perfetto) {
            perfetto.finish().map_err(|source| OutputError { path: path.clone(), source })?;
        }
        Ok(())
    }

    /// Closes open journeys and writes everything; the text to `out`.
    ///
    /// # Errors
    /// `out` or an output file does not take it.
    pub fn finish(mut self, out: &mut dyn Write) -> Result<u8, Error> {
        let (options, stats) = (&self.options, &mut self.stats);
        let keep = Keep::of(options);
        let perfetto = &mut self.perfetto;
        self.assembler.finish(&mut |journey| {
            if let Some(perfetto) = perfetto {
                perfetto.journey(&journey);
            }
            stats.add(journey, keep.slowest, keep.sample);
        });
        let files = self.write_files();
        let told = text::write(&self, out).and_then(|()| out.flush());
        files?;
        match told {
            // Whoever reads the text has seen enough: `journey report .. | head`.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(Error::Text(error)),
            _ => {}
        }
        Ok(if self.problem_count > 0 || self.stats.journeys == 0 { 2 } else { 0 })
    }
}

/// Whether a report may go where there may be a file: into a new one, or in place of an earlier report.
fn may_replace(path: &Path, beginning: &[u8]) -> io::Result<()> {
    let mut file = match File::open(path) {
        Ok(file) if file.metadata()?.is_file() => file,
        // No file, or one that has nothing to lose.
        _ => return Ok(()),
    };
    let mut there = Vec::new();
    Read::by_ref(&mut file).take(beginning.len() as u64).read_to_end(&mut there)?;
    match beginning.starts_with(&there) {
        true => Ok(()),
        false => Err(io::Error::other("it is no earlier report; remove it, or choose another name")),
    }
}

/// Why a report could not be given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text was not taken.
    #[error("cannot write the report: {0}")]
    Text(#[source] io::Error),
    /// An output file was not taken.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// How many journeys are kept whole.
#[derive(Clone, Copy)]
struct Keep {
    slowest: usize,
    sample: usize,
}

impl Keep {
    fn of(options: &Options) -> Self {
        match options.html {
            Some(_) => Self { slowest: options.slowest.max(PAGE_JOURNEYS / 2), sample: PAGE_JOURNEYS / 2 },
            None => Self { slowest: options.slowest, sample: 0 },
        }
    }
}

impl Sink for Report {
    fn span(&mut self, span: Span, _at: At) {
        self.spans += 1;
        let keep = Keep::of(&self.options);
        let (stats, perfetto) = (&mut self.stats, &mut self.perfetto);
        let of_journey = self.assembler.add(&span, &mut |journey| {
            if let Some(perfetto) = perfetto.as_mut() {
                perfetto.journey(&journey);
            }
            stats.add(journey, keep.slowest, keep.sample);
        });
        if of_journey {
            return;
        }
        match self.dialects.span_name(&span).filter(|name| self.dialects.scope(&span) == Some(name.scope())) {
            Some(SpanName::SchedulerStep) => {
                self.steps.add(&span);
                if let Some(perfetto) = &mut self.perfetto {
                    perfetto.step(&span);
                }
            }
            Some(SpanName::ModelForward) => {}
            _ => self.foreign += 1,
        }
    }

    fn problem(&mut self, problem: Problem) {
        self.problem_count += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }
}
