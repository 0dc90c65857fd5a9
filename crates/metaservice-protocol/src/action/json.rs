//! The fields of an action on the wire.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::id::ActionId;

/// The five fields of version 1, which are always present, and the options of the extensions.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ActionJson {
    pub(super) id: ActionId,
    #[serde(rename = "type")]
    pub(super) name: String,
    #[serde(default)]
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) command: Option<Vec<String>>,
    #[serde(default)]
    pub(super) tty: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) options: Option<Value>,
}

impl ActionJson {
    pub(super) fn new(id: ActionId, name: impl Into<String>) -> Self {
        let (path, tty) = (Some(String::new()), Some(false));
        Self { id, name: name.into(), path, command: None, tty, options: None }
    }
}

/// Reads options; `None` if they are missing or invalid.
pub(super) fn options<T: DeserializeOwned>(options: Option<Value>) -> Option<T> {
    serde_json::from_value(options?).ok()
}

pub(super) fn to_options<T: Serialize>(options: &T) -> Option<Value> {
    serde_json::to_value(options).ok()
}
