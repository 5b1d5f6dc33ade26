//! Chat templates: the checkpoint's own, in Jinja, or a plain default.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};
use serde::Deserialize;

use super::types::{Content, Message};

/// Used where the checkpoint has none: ChatML without its special tokens would mean nothing to such a model, so the
/// roles are written out.
const DEFAULT: &str = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}\
                       {% if add_generation_prompt %}assistant: {% endif %}";
const NAME: &str = "chat";

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// `tokenizer_config.json` is not what it should be.
    #[error("tokenizer_config.json: {0}")]
    Config(#[from] serde_json::Error),
    /// The template does not compile, or does not fit the messages.
    #[error("chat template: {0:#}")]
    Jinja(#[from] minijinja::Error),
}

/// What of `tokenizer_config.json` concerns the template.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    chat_template: Option<Templates>,
    bos_token: Option<Token>,
    eos_token: Option<Token>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Added { content: String },
}

impl ChatTemplate {
    /// The template of a checkpoint: the text of its `chat_template.jinja`, else what its `tokenizer_config.json` says, else
    /// the default.
    ///
    /// # Errors
    /// The configuration is not JSON, or the template does not compile.
    pub fn load(config: Option<&str>, file: Option<String>) -> Result<Self, TemplateError> {
        let config: TokenizerConfig = config.map(serde_json::from_str).transpose()?.unwrap_or_default();
        let configured = match config.chat_template {
            Some(Templates::One(template)) => Some(template),
            Some(Templates::Named(all)) => all.into_iter().find(|one| one.name == "default").map(|one| one.template),
            None => None,
        };
        let token = |token: Option<Token>| match token {
            Some(Token::Text(text) | Token::Added { content: text }) => text,
            None => String::new(),
        };
        let mut environment = Environment::new();
        // Python's string methods, and a way for a template to refuse a conversation: both are common in checkpoints.
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        // As transformers renders them.
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.add_template_owned(NAME, file.or(configured).unwrap_or_else(|| DEFAULT.to_owned()))?;
        Ok(Self { environment, bos_token: token(config.bos_token), eos_token: token(config.eos_token) })
    }

    /// The text of a conversation, up to where the assistant begins.
    ///
    /// # Errors
    /// The template refuses the conversation.
    pub fn render(&self, messages: &[Message]) -> Result<String, TemplateError> {
        let turn = |message: &Message| {
            let content = match &message.content {
                None => String::new(),
                Some(Content::Text(text)) => text.clone(),
                Some(Content::Parts(parts)) => parts.iter().filter_map(|part| part.text.as_deref()).collect(),
            };
            let turn = context! { role => message.role.as_str(), content => content };
            match &message.name {
                Some(name) => context! { name => name.as_str(), ..turn },
                None => turn,
            }
        };
        let turns: Vec<Value> = messages.iter().map(turn).collect();
        let template = self.environment.get_template(NAME)?;
        Ok(template.render(context! {
            messages => turns,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
            add_generation_prompt => true,
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(role: &str, text: &str) -> Message {
        Message { role: role.into(), content: Some(Content::Text(text.into())), name: None }
    }

    #[test]
    fn a_checkpoint_without_a_template_gets_the_plain_one() {
        let template = ChatTemplate::load(None, None).expect("the default compiles");
        let text = template.render(&[say("system", "be kind"), say("user", "hi")]).expect("renders");
        assert_eq!(text, "system: be kind\nuser: hi\nassistant: ");
    }

    #[test]
    fn the_checkpoint_s_template_is_used_with_its_tokens_and_python_s_methods() {
        let config = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template":
            "{{ bos_token }}{% for m in messages %}[{{ m['role'].upper() }}]{{ m.content.strip() }}{{ eos_token }}{% endfor %}"}"#;
        let template = ChatTemplate::load(Some(config), None).expect("compiles");
        assert_eq!(template.render(&[say("user", " hi ")]).expect("renders"), "<s>[USER]hi</s>");
    }

    #[test]
    fn a_template_file_goes_before_the_configuration() {
        let template =
            ChatTemplate::load(Some(r#"{"chat_template": "old"}"#), Some("new".to_owned())).expect("compiles");
        assert_eq!(template.render(&[]).expect("renders"), "new");
    }

    #[test]
    fn a_template_can_refuse_a_conversation() {
        let config = r#"{"chat_template": "{{ raise_exception('roles must alternate') }}"}"#;
        let template = ChatTemplate::load(Some(config), None).expect("compiles");
        let error = template.render(&[say("user", "hi")]).expect_err("refused").to_string();
        assert!(error.contains("roles must alternate"), "{error}");
    }

    #[test]
    fn a_broken_template_is_refused_when_it_is_loaded() {
        let error = ChatTemplate::load(Some(r#"{"chat_template": "{% for %}"}"#), None).expect_err("broken");
        assert!(matches!(error, TemplateError::Jinja(_)), "{error}");
    }
}
