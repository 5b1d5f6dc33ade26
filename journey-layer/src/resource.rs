//! The one resource that both scopes belong to.

use journey_schema::DEFAULT_SERVICE_NAME;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;

use crate::env::Env;

const SERVICE_NAME: &str = "service.name";

/// The resource: what was given, over `OTEL_SERVICE_NAME`, over `OTEL_RESOURCE_ATTRIBUTES`, over the defaults.
pub(crate) fn resource(given: Vec<KeyValue>, env: &Env) -> Resource {
    let variables = env.resource_attributes().into_iter().map(|(key, value)| KeyValue::new(key, value));
    let service_name = env.text("OTEL_SERVICE_NAME").map(|name| KeyValue::new(SERVICE_NAME, name));
    Resource::builder_empty()
        .with_attribute(KeyValue::new(SERVICE_NAME, DEFAULT_SERVICE_NAME))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(variables)
        .with_attributes(service_name)
        .with_attributes(given)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(given: Option<&'static str>, variables: &'static [(&str, &str)]) -> String {
        let env = Env::new(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()));
        let given = given.map(|name| KeyValue::new(SERVICE_NAME, name)).into_iter().collect();
        resource(given, &env).get(&SERVICE_NAME.into()).unwrap().to_string()
    }

    #[test]
    fn the_service_name_has_an_order_of_precedence() {
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=from-attributes");
        let name = ("OTEL_SERVICE_NAME", "from-name");
        assert_eq!(service(None, &[]), "vllm");
        assert_eq!(service(None, &[("OTEL_SERVICE_NAME", "")]), "vllm");
        assert_eq!(service(None, const { &[("OTEL_RESOURCE_ATTRIBUTES", "service.name=x,a=b")] }), "x");
        let both: &'static [(&str, &str)] = Box::leak(Box::new([attributes, name]));
        assert_eq!(service(None, both), "from-name");
        assert_eq!(service(Some("given"), both), "given");
    }

    #[test]
    fn it_names_the_sdk_and_what_the_environment_adds() {
        let env = Env::new(|name| (name == "OTEL_RESOURCE_ATTRIBUTES").then(|| "deployment.environment=test".into()));
        let resource = resource(Vec::new(), &env);
        assert_eq!(resource.get(&"telemetry.sdk.language".into()), Some("rust".into()));
        assert_eq!(resource.get(&"deployment.environment".into()), Some("test".into()));
    }
}
