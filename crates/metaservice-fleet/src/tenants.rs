//! The limits of tenants: how many of their jobs may run and wait.

use serde::{Deserialize, Serialize};

/// The longest limits as JSON, in bytes.
pub const MAX_LIMITS: usize = 4096;

/// What a tenant may have at once. `None`: any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantLimits {
    /// The jobs that run. Zero: none starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<u32>,
    /// The jobs that wait. Zero: none is submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
}

impl TenantLimits {
    /// The limits in this JSON. `None`: they are too long, or have another form.
    #[must_use]
    pub fn read(json: &[u8]) -> Option<Self> {
        if json.len() > MAX_LIMITS {
            return None;
        }
        serde_json::from_slice(json).ok()
    }

    /// Whether no limit is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a tenant has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantUse {
    /// The jobs that run.
    pub running: u32,
    /// The jobs that wait.
    pub waiting: u32,
    /// What it may have.
    pub limits: TenantLimits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_not_named_is_none() {
        let limits = |json: &str| TenantLimits::read(json.as_bytes());
        assert_eq!(limits("{}"), Some(TenantLimits::default()));
        let two = TenantLimits { running: Some(2), waiting: None };
        assert_eq!(limits(r#"{"running": 2, "later": 1}"#), Some(two));
        for wrong in ["", "2", r#"{"running": -1}"#, r#"{"waiting": "x"}"#] {
            assert_eq!(limits(wrong), None, "{wrong}");
        }
        assert_eq!(limits(&format!("{{}}{}", " ".repeat(MAX_LIMITS))), None);
    }
}
