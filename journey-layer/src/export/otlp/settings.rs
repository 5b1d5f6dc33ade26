//! The settings of an OTLP exporter, complete and judged.

use std::path::PathBuf;
use std::time::Duration;

use crate::env::{Env, pairs};
use crate::error::OtlpError;
use crate::export::otlp::endpoint::{self, Appends, Setting, for_people};
use crate::export::otlp::{Otlp, Protocol};

/// Everything that is needed to send; nothing is read from the environment after this.
#[derive(Debug)]
#[cfg_attr(
    not(all(feature = "tls", any(feature = "otlp-grpc", feature = "otlp-http"))),
    expect(dead_code, reason = "only TLS reads the certificates, and only a protocol the rest")
)]
pub(crate) struct Resolved {
    pub(crate) protocol: Protocol,
    pub(crate) url: String,
    /// Names in lower case, each once.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) timeout: Duration,
    pub(crate) gzip: bool,
    pub(crate) certificates: Certificates,
}

/// PEM files for TLS, each with the variable that names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Certificates {
    pub(crate) authority: Option<(&'static str, PathBuf)>,
    pub(crate) client: Option<(&'static str, PathBuf)>,
    pub(crate) client_key: Option<(&'static str, PathBuf)>,
}

/// The variable for traces, and the one for all signals.
macro_rules! variables {
    ($name:literal) => {
        [concat!("OTEL_EXPORTER_OTLP_TRACES_", $name), concat!("OTEL_EXPORTER_OTLP_", $name)]
    };
}

pub(crate) fn resolve(otlp: Otlp, env: &Env) -> Result<Resolved, OtlpError> {
    let protocol = protocol(otlp.protocol, env)?;
    let tls = cfg!(feature = "tls");
    let [traces, base] = variables!("ENDPOINT");
    let url = if let Some(value) = otlp.endpoint {
        endpoint::resolve(&value, Setting { name: "Otlp::endpoint", appends: Appends::WithoutPath }, protocol, tls)?
    } else if let Some(value) = env.text(traces) {
        let url = endpoint::resolve(&value, Setting { name: traces, appends: Appends::Never }, protocol, tls)?;
        if protocol == Protocol::HttpProtobuf && url.ends_with('/') {
            env.warn(format!(
                "{traces} is `{}`, so spans go to `{}`: write the whole URL, which mostly ends in /v1/traces",
                for_people(&value),
                for_people(&url),
            ));
        }
        url
    } else {
        let value = env.text(base).unwrap_or_else(|| protocol.default_endpoint().to_owned());
        endpoint::resolve(&value, Setting { name: base, appends: Appends::Always }, protocol, tls)?
    };
    let timeout = otlp.timeout.or_else(|| variables!("TIMEOUT").into_iter().find_map(|name| env.millis(name)));
    let file = |names| env.first(names).map(|(name, path)| (name, PathBuf::from(path)));
    Ok(Resolved {
        protocol,
        url,
        headers: headers(otlp.headers, env)?,
        timeout: timeout.unwrap_or(Duration::from_secs(10)),
        gzip: otlp.gzip.unwrap_or_else(|| gzip(env)),
        certificates: Certificates {
            authority: file(variables!("CERTIFICATE")),
            client: file(variables!("CLIENT_CERTIFICATE")),
            client_key: file(variables!("CLIENT_KEY")),
        },
    })
}

fn protocol(given: Option<Protocol>, env: &Env) -> Result<Protocol, OtlpError> {
    let compiled = if Protocol::HttpProtobuf.is_compiled() { Protocol::HttpProtobuf } else { Protocol::Grpc };
    let (setting, value, protocol) = match (given, env.first(variables!("PROTOCOL"))) {
        (Some(protocol), _) => ("Otlp::protocol", protocol.as_str().to_owned(), Some(protocol)),
        (None, None) => ("Exporter::otlp", compiled.as_str().to_owned(), Some(compiled)),
        (None, Some((setting, value))) => match value.as_str() {
            "grpc" => (setting, value, Some(Protocol::Grpc)),
            "http/protobuf" => (setting, value, Some(Protocol::HttpProtobuf)),
            _ => (setting, value, None),
        },
    };
    let refuse = |problem, instead: Protocol| {
        Err(OtlpError::Protocol { setting, value: value.clone(), problem, instead: instead.as_str() })
    };
    match protocol {
        Some(protocol) if protocol.is_compiled() => Ok(protocol),
        Some(Protocol::Grpc) => refuse("the feature `otlp-grpc` of journey-layer is not compiled in", compiled),
        Some(Protocol::HttpProtobuf) => refuse("the feature `otlp-http` of journey-layer is not compiled in", compiled),
        None if value.starts_with("http") => refuse("only protobuf is spoken over HTTP", Protocol::HttpProtobuf),
        None => refuse("there is no such protocol", compiled),
    }
}

/// The environment's headers under those that were given.
fn headers(given: Vec<(String, String)>, env: &Env) -> Result<Vec<(String, String)>, OtlpError> {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut put = |setting, name: String, value: String| {
        let name = name.to_ascii_lowercase();
        let token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
        if name.is_empty() || !name.bytes().all(token) {
            // Behind a blank or a colon stands the value of a header that was written in another form.
            let end = name.bytes().position(|c| !token(c)).unwrap_or(name.len());
            let name = name[..end].to_owned();
            return Err(OtlpError::Header { setting, name, problem: "a name is made of letters, digits and `-`" });
        }
        if !value.bytes().all(|c| matches!(c, b'\t' | b' '..=b'~')) {
            return Err(OtlpError::Header { setting, name, problem: "its value has characters beyond ASCII" });
        }
        headers.retain(|(known, _)| *known != name);
        headers.push((name, value));
        Ok(())
    };
    if let Some((setting, list)) = env.first(variables!("HEADERS")) {
        for pair in pairs(&list) {
            match pair {
                Some((name, value)) => put(setting, name, value)?,
                // Not quoted: what stands there may be a secret that lost its name.
                None => env.warn(format!("{setting} has a part that is not `name=value`, which was ignored")),
            }
        }
    }
    for (name, value) in given {
        put("Otlp::header", name, value)?;
    }
    Ok(headers)
}

fn gzip(env: &Env) -> bool {
    let Some((name, value)) = env.first(variables!("COMPRESSION")) else { return false };
    if value != "gzip" && value != "none" {
        env.warn(format!("{name} is `{value}`, which was ignored: write `gzip` or `none`"));
    }
    value == "gzip"
}

impl Resolved {
    /// Without user information and headers, which may be secrets.
    pub(crate) fn label(&self) -> String {
        let (scheme, rest) = self.url.split_once("://").expect("a resolved URL has a scheme");
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let path = path.split('?').next().unwrap_or_default();
        format!("otlp {} {scheme}://{host}{path}", self.protocol.as_str())
    }
}
