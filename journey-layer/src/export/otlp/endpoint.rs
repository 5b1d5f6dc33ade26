//! Which URL spans are sent to; mistakes are refused with what to write in their place.

use std::borrow::Cow;

use crate::error::OtlpError;
use crate::export::otlp::Protocol;

/// Where an endpoint was given, which decides what is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    /// Over HTTP, the signal's path is appended.
    pub(crate) appends: Appends,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appends {
    /// As the specification says of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    Always,
    /// To a URL without a path: `Otlp::endpoint` takes both a collector's address and a whole URL.
    WithoutPath,
    /// As the specification says of `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`.
    Never,
}

const TRACES: &str = "/v1/traces";
const GRPC_PORT: u16 = 4317;
const HTTP_PORT: u16 = 4318;

/// The parts of a URL that endpoints are judged by.
struct Url<'a> {
    scheme: &'a str,
    /// With user information, if there is any.
    authority: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Url<'a> {
    fn split(scheme: &'a str, rest: &'a str) -> Self {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let (path, query) = tail.split_at(tail.find(['?', '#']).unwrap_or(tail.len()));
        Self { scheme, authority, path, query }
    }

    fn host_and_port(&self) -> Option<(&'a str, Option<u16>)> {
        let host = self.authority.rsplit_once('@').map_or(self.authority, |(_, host)| host);
        let (host, port) = match host.rfind(':') {
            Some(colon) if !host[colon..].contains(']') => (&host[..colon], Some(&host[colon + 1..])),
            _ => (host, None),
        };
        let port = port.map(|port| port.parse::<u16>().ok().filter(|port| *port > 0));
        let valid = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control());
        match port {
            Some(None) => None,
            Some(Some(port)) => valid.then_some((host, Some(port))),
            None => valid.then_some((host, None)),
        }
    }

    fn with(&self, scheme: &str, port: Option<u16>, path: &str) -> String {
        let authority: Cow<'_, str> = match (port, self.host_and_port()) {
            (Some(port), Some((_, Some(old)))) => {
                let bare = self.authority.strip_suffix(&old.to_string()).unwrap_or(self.authority);
                format!("{bare}{port}").into()
            }
            _ => self.authority.into(),
        };
        format!("{scheme}://{authority}{path}{}", self.query)
    }
}

/// The URL that an endpoint stands for.
///
/// # Errors
/// It cannot be what was meant. The error shows no secret.
pub(crate) fn resolve(value: &str, setting: Setting, protocol: Protocol, tls: bool) -> Result<String, OtlpError> {
    let name = setting.name;
    let owned = for_people(value).into_owned();
    let example = protocol.default_endpoint();
    let Some((scheme, rest)) = split_scheme(value) else {
        return Err(OtlpError::MissingScheme { setting: name, value: owned });
    };
    let url = Url::split(scheme, rest);
    let instead = |scheme: &str, port, path: &str| for_people(&url.with(scheme, port, path)).into_owned();
    let invalid = |problem: String| OtlpError::InvalidUrl {
        setting: name,
        value: owned.clone(),
        problem,
        example: example.to_owned(),
    };
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return Err(invalid(format!("`{}` is neither http nor https", url.scheme)));
    }
    let Some((_, port)) = url.host_and_port() else {
        return Err(invalid("it has no valid host and port".into()));
    };
    if scheme == "https" && !tls {
        return Err(OtlpError::NoTls { setting: name, value: owned, instead: instead("http", None, url.path) });
    }
    let (wrong, right, its) = match protocol {
        Protocol::HttpProtobuf => (GRPC_PORT, HTTP_PORT, "grpc"),
        Protocol::Grpc => (HTTP_PORT, GRPC_PORT, "http/protobuf"),
    };
    if port == Some(wrong) {
        return Err(OtlpError::WrongPort {
            setting: name,
            value: owned.clone(),
            port: wrong,
            its,
            chosen: protocol.as_str(),
            instead: instead(&scheme, Some(right), url.path),
        });
    }
    let path = url.path.trim_end_matches('/');
    let wrong_path = |problem, path: &str| OtlpError::WrongPath {
        setting: name,
        value: owned.clone(),
        problem,
        instead: instead(&scheme, None, path),
    };
    let appended = |path: &str| Ok(url.with(&scheme, None, &format!("{path}{TRACES}")));
    let base = path.strip_suffix(TRACES);
    match (protocol, setting.appends) {
        (Protocol::Grpc, _) if !path.is_empty() => Err(wrong_path("gRPC has no path", "")),
        (Protocol::Grpc, _) => Ok(url.with(&scheme, None, "")),
        (Protocol::HttpProtobuf, _) if base.is_some_and(|base| base.ends_with(TRACES)) => {
            Err(wrong_path("/v1/traces stands there twice", path.trim_end_matches(TRACES)))
        }
        (Protocol::HttpProtobuf, _) if path.ends_with("/v1/metrics") || path.ends_with("/v1/logs") => {
            let base = path.trim_end_matches("/v1/metrics").trim_end_matches("/v1/logs");
            let instead = if setting.appends == Appends::Always { base.to_owned() } else { format!("{base}{TRACES}") };
            Err(wrong_path("this is the path of another signal", &instead))
        }
        (Protocol::HttpProtobuf, Appends::Always) => match base {
            Some(base) => Err(wrong_path("/v1/traces is appended to it, and would stand there twice", base)),
            None => appended(path),
        },
        (Protocol::HttpProtobuf, Appends::WithoutPath) if path.is_empty() => appended(""),
        (Protocol::HttpProtobuf, Appends::WithoutPath | Appends::Never) => {
            let path = if url.path.is_empty() { "/" } else { url.path };
            Ok(url.with(&scheme, None, path))
        }
    }
}

/// A URL's scheme, and what stands behind it.
fn split_scheme(value: &str) -> Option<(&str, &str)> {
    let is_scheme = |scheme: &str| scheme.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c));
    value.split_once("://").filter(|(scheme, _)| is_scheme(scheme))
}

/// An endpoint without what may be a secret in it: all before the last `@`, and the query.
pub(crate) fn for_people(value: &str) -> Cow<'_, str> {
    let scheme = split_scheme(value).map_or(0, |(scheme, _)| scheme.len() + "://".len());
    let host = value[scheme..].rfind('@').map_or(scheme, |at| scheme + at);
    let query = value[host..].find(['?', '#']).map_or(value.len(), |at| host + at);
    if host == scheme && query == value.len() {
        return value.into();
    }
    let user = if host > scheme { "***" } else { "" };
    let masked = if query < value.len() { "?***" } else { "" };
    format!("{}{user}{}{masked}", &value[..scheme], &value[host..query]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Setting = Setting { name: "OTEL_EXPORTER_OTLP_ENDPOINT", appends: Appends::Always };
    const TRACES_ONLY: Setting = Setting { name: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", appends: Appends::Never };
    const BUILDER: Setting = Setting { name: "Otlp::endpoint", appends: Appends::WithoutPath };

    #[test]
    fn endpoints_become_urls_as_specified() {
        use Protocol::{Grpc, HttpProtobuf};
        let cases = [
            (BASE, HttpProtobuf, "http://c:4318", "http://c:4318/v1/traces"),
            (BASE, HttpProtobuf, "http://c:4318/", "http://c:4318/v1/traces"),
            (BASE, HttpProtobuf, "http://c/otlp/", "http://c/otlp/v1/traces"),
            (BASE, HttpProtobuf, "HTTP://c/otlp?key=1", "http://c/otlp/v1/traces?key=1"),
            (BASE, HttpProtobuf, "http://[::1]:4318", "http://[::1]:4318/v1/traces"),
            (BASE, HttpProtobuf, "http://me:pw@c:80", "http://me:pw@c:80/v1/traces"),
            (TRACES_ONLY, HttpProtobuf, "http://c:4318/v1/traces", "http://c:4318/v1/traces"),
            (TRACES_ONLY, HttpProtobuf, "http://c:4318/custom", "http://c:4318/custom"),
            (TRACES_ONLY, HttpProtobuf, "http://c:4318", "http://c:4318/"),
            (BUILDER, HttpProtobuf, "http://c:4318", "http://c:4318/v1/traces"),
            (BUILDER, HttpProtobuf, "http://c:4318/v1/traces", "http://c:4318/v1/traces"),
            (BASE, HttpProtobuf, "https://c", "https://c/v1/traces"),
            (BASE, Grpc, "http://c:4317", "http://c:4317"),
            (BASE, Grpc, "https://c:4317/", "https://c:4317"),
            (BUILDER, Grpc, "http://[::1]:4317", "http://[::1]:4317"),
        ];
        for (setting, protocol, value, url) in cases {
            assert_eq!(resolve(value, setting, protocol, true).as_deref(), Ok(url), "{value}");
        }
    }

    #[test]
    fn mistakes_are_refused_with_what_to_write() {
        use Protocol::{Grpc, HttpProtobuf};
        let cases = [
            (BASE, HttpProtobuf, "collector:4318", "write `http://collector:4318`"),
            (BASE, Grpc, "localhost:4317", "write `http://localhost:4317`"),
            (BASE, HttpProtobuf, "ftp://c", "neither http nor https"),
            (BASE, HttpProtobuf, "http://", "no valid host and port"),
            (BASE, HttpProtobuf, "http://:4318", "no valid host and port"),
            (BASE, HttpProtobuf, "http://c:99999", "no valid host and port"),
            (BASE, HttpProtobuf, "http://c:port", "no valid host and port"),
            (BASE, HttpProtobuf, "http://c:4318/v1/traces", "write `http://c:4318`"),
            (BASE, HttpProtobuf, "http://c:4318/v1/traces/", "write `http://c:4318`"),
            (BASE, HttpProtobuf, "http://c:4318/v1/metrics", "write `http://c:4318`"),
            (TRACES_ONLY, HttpProtobuf, "http://c/v1/traces/v1/traces", "twice"),
            (TRACES_ONLY, HttpProtobuf, "http://c/v1/logs", "write `http://c/v1/traces`"),
            (BASE, HttpProtobuf, "http://c:4317", "write `http://c:4318`, or set the protocol to grpc"),
            (BASE, Grpc, "http://c:4318", "write `http://c:4317`, or set the protocol to http/protobuf"),
            (BASE, Grpc, "http://c:4317/v1/traces", "write `http://c:4317`"),
            (BUILDER, Grpc, "http://c/otlp", "gRPC has no path"),
        ];
        for (setting, protocol, value, hint) in cases {
            let error = resolve(value, setting, protocol, true).expect_err(value).to_string();
            assert!(error.contains(hint) && error.contains(setting.name), "{value}: {error}");
        }
        for value in [
            "http://me:secret@c:4317",
            "me:secret@c:4318",
            "ftp://secret@c",
            "http://me:secret@:1/",
            "http://me:a/secret@c:4318",
            "http://me:a?secret@c:x",
            "http://secret:@c:4317",
            "me:secret@c:4318/?url=http://d",
            "http://c:4317?key=secret",
            "http://c:4318/v1/traces?key=secret",
        ] {
            let error = resolve(value, BASE, HttpProtobuf, true).expect_err(value).to_string();
            assert!(!error.contains("secret") && error.contains("***"), "{value}: {error}");
        }
        let error = resolve("https://c:4317", BASE, Grpc, false).unwrap_err().to_string();
        assert!(error.contains("feature `tls`") && error.contains("write `http://c:4317`"), "{error}");
    }
}
