//! The forms of `-o`, and the writing of values in them.

use ostler_schemas::manifest::to_yaml;
use serde_json::{Value, json};

use super::jsonpath::Template;
use crate::failure::Failure;

/// A form of output.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// A table.
    Table,
    /// A table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `kind/name`, one on a line.
    Name,
    /// A JSONPath template.
    JsonPath(Template),
}

impl Form {
    /// From the value of `-o`.
    ///
    /// # Errors
    /// Lists the forms.
    pub fn parse(text: Option<&str>) -> Result<Self, Failure> {
        match text {
            None => Ok(Form::Table),
            Some("wide") => Ok(Form::Wide),
            Some("json") => Ok(Form::Json),
            Some("yaml") => Ok(Form::Yaml),
            Some("name") => Ok(Form::Name),
            Some(other) => match other.strip_prefix("jsonpath=") {
                Some(template) => Template::parse(template).map(Form::JsonPath),
                None => Err(Failure::message(format!(
                    "{other:?} is not a form of output: write wide, json, yaml, name or jsonpath=TEMPLATE"
                ))),
            },
        }
    }

    /// Whether objects are needed whole, contents of files included.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match self {
            Form::Json | Form::Yaml | Form::JsonPath(_) => true,
            Form::Table | Form::Wide | Form::Name => false,
        }
    }

    /// A value in one of the forms that show whole objects.
    ///
    /// # Errors
    /// When a template cannot be applied.
    pub fn write(&self, value: &Value) -> Result<String, Failure> {
        match self {
            Form::Yaml => Ok(to_yaml(value)),
            Form::JsonPath(template) => {
                let mut text = template.apply(value);
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
                Ok(text)
            }
            Form::Json | Form::Table | Form::Wide | Form::Name => Ok(pretty(value)),
        }
    }
}

/// JSON over several lines, with a line break at the end.
#[must_use]
pub fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// One object as it is; any other number as a List.
#[must_use]
pub fn list(mut items: Vec<Value>, is_list: bool) -> Value {
    match items.len() {
        1 if !is_list => items.remove(0),
        _ => json!({"kind": "List", "items": items}),
    }
}
