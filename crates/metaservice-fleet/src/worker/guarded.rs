//! An attempt whose fault ends only itself.

use std::any::Any;
use std::path::PathBuf;

use tokio_util::task::AbortOnDropHandle;

/// Runs an attempt in a task of its own. A panic in it is an error with its text, and its directory
/// is removed.
///
/// Cancellation: the attempt is cancelled.
pub(super) async fn guarded<T: Send + 'static>(
    attempt: impl Future<Output = T> + Send + 'static,
    directory: PathBuf,
) -> Result<T, String> {
    let ended = match AbortOnDropHandle::new(tokio::spawn(attempt)).await {
        Ok(ended) => return Ok(ended),
        Err(ended) => ended,
    };
    let _ = tokio::fs::remove_dir_all(directory).await;
    let text = ended.try_into_panic().ok().map(|panic| text(&*panic).to_owned());
    Err(format!("a fault of the worker: {}", text.as_deref().unwrap_or("cancelled")))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_the_error_of_its_attempt_only() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("a.1");
        std::fs::create_dir(&place).unwrap();
        let ended = guarded(async { 7 }, place.clone()).await;
        assert_eq!((ended, place.exists()), (Ok(7), true));
        let ended: Result<(), _> = guarded(async { panic!("no room") }, place.clone()).await;
        assert_eq!(ended, Err("a fault of the worker: no room".to_owned()));
        assert!(!place.exists());
        let number = 3;
        let ended: Result<(), _> = guarded(async move { panic!("{number}") }, place).await;
        assert_eq!(ended, Err("a fault of the worker: 3".to_owned()));
    }
}
