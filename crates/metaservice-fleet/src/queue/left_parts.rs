//! The removal of parts of files that belong to no object: what uploads have left whose worker was
//! killed, or cut off.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::TryStreamExt;

use super::connection::{OBJECTS, Queue};
use super::error::PruneError;
use super::keys::content_subject;
use super::prune::failed;
use super::watch::Marks;

/// No upload stores nothing for so long: a worker that cannot store a part within this time has no
/// lease any more.
pub const LEFT_AFTER: Duration = Duration::from_hours(24);

impl Queue {
    /// Removes the parts of files that belong to no object and whose last part was stored at least
    /// so long ago, by the server's clock: [`LEFT_AFTER`], so that no upload is disturbed. Returns
    /// of how many files it removed parts.
    ///
    /// Cancellation: some are removed. The next call removes the rest.
    ///
    /// # Errors
    /// When no server answers, or the user may not.
    pub async fn remove_left_parts(&self, after: Duration) -> Result<usize, PruneError> {
        // The parts first: an upload that ends in between has its mark then.
        let uploads = self.uploads().await?;
        let mut marks = Marks::open(self).await?;
        let now = marks.opened();
        let mut whole = HashSet::new();
        while !marks.is_caught_up() {
            whole.extend(marks.next().await?);
        }
        let mut removed = 0;
        for upload in uploads.difference(&whole) {
            let content = content_subject(upload);
            let Ok(last) = self.last(OBJECTS, &content).await? else { continue };
            let stored = last.time.unix_timestamp_nanos() / 1_000_000;
            if i128::from(now) - stored >= i128::try_from(after.as_millis()).unwrap_or(i128::MAX) {
                self.remove(OBJECTS, content, None).await.map_err(failed)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The names under which there are parts.
    async fn uploads(&self) -> Result<HashSet<String>, PruneError> {
        let (all, subject) = (content_subject("*"), format!("$JS.API.STREAM.INFO.{OBJECTS}"));
        let stream = self.stream(OBJECTS).await?;
        let listing = async {
            let subjects = stream.info_with_subjects(&all).await?;
            let head = all.trim_end_matches('*');
            let names = subjects.try_filter_map(|(subject, _)| {
                std::future::ready(Ok(subject.strip_prefix(head).map(str::to_owned)))
            });
            names.try_collect().await
        };
        let listed = self.denials().watch(&subject, listing).await?;
        listed.map_err(|error| failed(error.into()))
    }
}
