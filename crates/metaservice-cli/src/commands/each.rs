//! Verbs that take the names of several jobs.

use anyhow::Result;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;

use crate::output::printer::Printer;
use crate::status::ExitStatus;

/// Asks for each job at once, and shows the answers in the order of the names, each as soon as it
/// is there. A job that fails does not hold up the others: its error is printed, and the status is
/// that of a failure.
///
/// # Errors
/// The error of `show`. With one name, also that of `ask`.
pub(super) async fn each<T, F>(
    names: Vec<String>,
    printer: Printer,
    ask: impl Fn(String) -> F,
    mut show: impl FnMut(T) -> Result<()>,
) -> Result<ExitStatus>
where
    F: Future<Output = Result<T>>,
{
    let is_alone = names.len() == 1;
    let mut answers: FuturesOrdered<_> = names.into_iter().map(ask).collect();
    let mut status = ExitStatus::SUCCESS;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(answer) => show(answer)?,
            Err(error) if is_alone => return Err(error),
            Err(error) => {
                printer.error(&error);
                status = ExitStatus::FAILED;
            }
        }
    }
    Ok(status)
}
