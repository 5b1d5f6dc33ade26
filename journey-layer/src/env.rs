//! The environment, read as the OpenTelemetry specification says: empty is unset, and a value that cannot be used is
//! warned of and ignored.

use std::cell::RefCell;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::config::Sampling;
use crate::export::convert::Semconv;

type Lookup = dyn Fn(&str) -> Option<String> + Send;

/// A set of variables: the process's, or a caller's.
pub(crate) struct Env {
    lookup: Box<Lookup>,
    warnings: RefCell<Vec<String>>,
}

impl Default for Env {
    fn default() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }
}

impl Env {
    pub(crate) fn new(lookup: impl Fn(&str) -> Option<String> + Send + 'static) -> Self {
        Self { lookup: Box::new(lookup), warnings: RefCell::default() }
    }

    /// What there is to say about the variables read so far.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    pub(crate) fn warn(&self, message: String) {
        self.warnings.borrow_mut().push(message);
    }

    fn ignored(&self, name: &str, value: &str, expected: impl Display) {
        self.warn(format!("{name} is `{value}`, which was ignored: write {expected}"));
    }

    /// The variable's text without blanks around it.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let value = (self.lookup)(name)?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// The first of `names` that is set, with its name.
    pub(crate) fn first(&self, names: [&'static str; 2]) -> Option<(&'static str, String)> {
        names.into_iter().find_map(|name| Some((name, self.text(name)?)))
    }

    /// `true` is true, in any case; anything else is false.
    pub(crate) fn boolean(&self, name: &str) -> bool {
        let Some(value) = self.text(name) else { return false };
        if !value.eq_ignore_ascii_case("true") && !value.eq_ignore_ascii_case("false") {
            self.ignored(name, &value, "`true` or `false`");
        }
        value.eq_ignore_ascii_case("true")
    }

    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        let value = self.text(name)?;
        let number = value.parse().ok();
        if number.is_none() {
            self.ignored(name, &value, "a number that is not negative");
        }
        number
    }

    /// Like [`Self::number`], without zero.
    pub(crate) fn positive(&self, name: &str) -> Option<usize> {
        let number: usize = self.number(name)?;
        if number == 0 {
            self.ignored(name, "0", "a number above zero");
        }
        (number > 0).then_some(number)
    }

    pub(crate) fn millis(&self, name: &str) -> Option<Duration> {
        self.number(name).map(Duration::from_millis)
    }

    /// `OTEL_TRACES_EXPORTER`: the names in it.
    pub(crate) fn exporters(&self) -> Vec<String> {
        let Some(value) = self.text("OTEL_TRACES_EXPORTER") else { return vec!["otlp".into()] };
        let mut names: Vec<String> = Vec::new();
        for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "otlp" | "console" if names.iter().any(|known| known == name) => {}
                "otlp" | "console" => names.push(name.into()),
                "none" => {}
                // The name that the specification had for the console before.
                "logging" => names.push("console".into()),
                _ => self.ignored("OTEL_TRACES_EXPORTER", name, "a list of `otlp`, `console` or `none`"),
            }
        }
        names
    }

    /// `OTEL_TRACES_SAMPLER` with its argument.
    pub(crate) fn sampling(&self) -> Option<Sampling> {
        let name = self.text("OTEL_TRACES_SAMPLER")?;
        let ratio = || match self.text("OTEL_TRACES_SAMPLER_ARG").map(|arg| (arg.parse::<f64>().ok(), arg)) {
            Some((Some(ratio), _)) if (0.0..=1.0).contains(&ratio) => ratio,
            Some((_, arg)) => {
                self.ignored("OTEL_TRACES_SAMPLER_ARG", &arg, "a number from 0.0 to 1.0");
                1.0
            }
            None => 1.0,
        };
        Some(match name.to_ascii_lowercase().as_str() {
            "always_on" => Sampling::TraceIdRatio(1.0),
            "always_off" => Sampling::TraceIdRatio(0.0),
            "traceidratio" => Sampling::TraceIdRatio(ratio()),
            "parentbased_always_on" => Sampling::ParentBased { root: 1.0 },
            "parentbased_always_off" => Sampling::ParentBased { root: 0.0 },
            "parentbased_traceidratio" => Sampling::ParentBased { root: ratio() },
            _ => {
                let known = "`always_on`, `always_off`, `traceidratio`, or one of these after `parentbased_`";
                self.ignored("OTEL_TRACES_SAMPLER", &name, known);
                return None;
            }
        })
    }

    /// `OTEL_SEMCONV_STABILITY_OPT_IN`, a list in which others have their say too.
    pub(crate) fn semconv(&self) -> Option<Semconv> {
        let value = self.text("OTEL_SEMCONV_STABILITY_OPT_IN")?;
        let has = |name: &str| value.split(',').any(|part| part.trim() == name);
        // `/dup` wins, as the semantic conventions say of their other opt-ins.
        if has("gen_ai_latest_experimental/dup") {
            Some(Semconv::Both)
        } else {
            has("gen_ai_latest_experimental").then_some(Semconv::Latest)
        }
    }

    /// `OTEL_RESOURCE_ATTRIBUTES`: all of them, or none when one is broken.
    pub(crate) fn resource_attributes(&self) -> Vec<(String, String)> {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let Some(value) = self.text(NAME) else { return Vec::new() };
        let pairs: Option<Vec<_>> = pairs(&value).collect();
        pairs.unwrap_or_else(|| {
            self.ignored(NAME, &value, "`key=value,key=value`, with `,` and `=` in values as %2C and %3D");
            Vec::new()
        })
    }
}

/// The `key=value` pairs of a comma list, values percent-decoded; `None` for one that is not a pair.
pub(crate) fn pairs(list: &str) -> impl Iterator<Item = Option<(String, String)>> {
    list.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        (!key.is_empty()).then_some(())?;
        Some((percent_decode(key)?, percent_decode(value.trim())?))
    })
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(variables: &'static [(&str, &str)]) -> Env {
        Env::new(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn all_six_samplers_are_known_and_a_wrong_one_is_warned_of() {
        type Case = (&'static [(&'static str, &'static str)], Option<Sampling>, usize);
        let cases: [Case; 10] = [
            (&[], None, 0),
            (&[("OTEL_TRACES_SAMPLER", "")], None, 0),
            (&[("OTEL_TRACES_SAMPLER", "always_on")], Some(Sampling::TraceIdRatio(1.0)), 0),
            (&[("OTEL_TRACES_SAMPLER", "always_off")], Some(Sampling::TraceIdRatio(0.0)), 0),
            (
                &[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")],
                Some(Sampling::TraceIdRatio(0.25)),
                0,
            ),
            (&[("OTEL_TRACES_SAMPLER", "parentbased_always_on")], Some(Sampling::ParentBased { root: 1.0 }), 0),
            (&[("OTEL_TRACES_SAMPLER", "parentbased_always_off")], Some(Sampling::ParentBased { root: 0.0 }), 0),
            (
                &[("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.5")],
                Some(Sampling::ParentBased { root: 0.5 }),
                0,
            ),
            (
                &[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "17")],
                Some(Sampling::TraceIdRatio(1.0)),
                1,
            ),
            (&[("OTEL_TRACES_SAMPLER", "jaeger_remote")], None, 1),
        ];
        for (variables, sampling, warnings) in cases {
            let env = env(variables);
            assert_eq!(env.sampling(), sampling, "{variables:?}");
            assert_eq!(env.take_warnings().len(), warnings, "{variables:?}");
        }
    }

    #[test]
    fn numbers_that_are_none_are_warned_of_and_ignored() {
        let env = env(&[("A", " 12 "), ("B", "-1"), ("C", "twelve"), ("D", ""), ("E", "0")]);
        assert_eq!(env.number::<u64>("A"), Some(12));
        assert_eq!(env.number::<u64>("B"), None);
        assert_eq!(env.number::<u64>("C"), None);
        assert_eq!(env.number::<u64>("D"), None);
        assert_eq!(env.positive("E"), None);
        let warnings = env.take_warnings();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings[0].contains("B is `-1`"), "{warnings:?}");
    }

    #[test]
    fn booleans_are_true_only_for_true() {
        let env = env(&[("A", "TRUE"), ("B", "false"), ("C", "1")]);
        assert!(env.boolean("A") && !env.boolean("B") && !env.boolean("C") && !env.boolean("D"));
        assert_eq!(env.take_warnings().len(), 1, "`1` is not a boolean of the specification");
    }

    #[test]
    fn the_list_of_exporters_may_name_several_or_none() {
        let exporters = |variables| env(variables).exporters();
        assert_eq!(exporters(&[]), ["otlp"]);
        assert_eq!(exporters(&[("OTEL_TRACES_EXPORTER", "none")]), [""; 0]);
        assert_eq!(exporters(&[("OTEL_TRACES_EXPORTER", "console, otlp,console")]), ["console", "otlp"]);
        let env = env(&[("OTEL_TRACES_EXPORTER", "zipkin,otlp")]);
        assert_eq!(env.exporters(), ["otlp"]);
        assert!(env.take_warnings()[0].contains("zipkin"));
    }

    #[test]
    fn resource_attributes_are_percent_decoded_and_all_or_nothing() {
        let decoded = env(&[("OTEL_RESOURCE_ATTRIBUTES", "a=1, b=x%2Cy%3Dz ,c=gr%C3%BCn")]).resource_attributes();
        let expected = [("a", "1"), ("b", "x,y=z"), ("c", "grün")];
        assert_eq!(decoded, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        for broken in ["a", "a=%", "a=%zz", "a=%ff", "=1"] {
            let env = Env::new(move |_| Some(format!("good=1,{broken}")));
            assert_eq!(env.resource_attributes(), [], "{broken}");
            assert_eq!(env.take_warnings().len(), 1, "{broken}");
        }
    }

    #[test]
    fn the_semantic_conventions_are_chosen_from_a_list() {
        let semconv = |value: &'static str| Env::new(move |_| Some(value.into())).semconv();
        assert_eq!(semconv("http"), None);
        assert_eq!(semconv("http, gen_ai_latest_experimental"), Some(Semconv::Latest));
        assert_eq!(semconv("gen_ai_latest_experimental,gen_ai_latest_experimental/dup"), Some(Semconv::Both));
    }
}
