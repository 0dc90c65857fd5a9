//! Runs of one test with many seeds.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use metaservice_testing::wait::TIMEOUT;

/// How many runs there are at a time.
const AT_ONCE: usize = 4;

/// Runs a test with the seeds from 0 to `count`. `METASERVICE_SEED` repeats one run.
/// `METASERVICE_CHAOS` sets the number of runs.
pub(crate) async fn with_seeds<F>(count: u64, run: fn(u64) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("METASERVICE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("METASERVICE_CHAOS").unwrap_or(count),
    };
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut runs = JoinSet::new();
    for seed in seeds {
        let places = Arc::clone(&places);
        runs.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let ran = timeout(TIMEOUT, tokio::spawn(run(seed))).await;
            assert!(matches!(ran, Ok(Ok(()))), "METASERVICE_SEED={seed} fails: {ran:?}");
        });
    }
    while let Some(ran) = runs.join_next().await {
        ran.unwrap();
    }
}
