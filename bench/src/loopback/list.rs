//! Measures `list-folder`: one file, as a round trip; many files, against `find`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use metaservice::MetaService;

use super::artifact::MEMORY;
use super::exec::{WARM_UP, percentiles, times};
use super::pair::Pair;
use crate::measure::{Better, Goal, Measure, Role, Setting};

pub(super) fn prepare_one(setting: &Setting) -> anyhow::Result<Measure> {
    let calls = setting.pick(500, 3000);
    let pair = Rc::new(Pair::idle(setting.agent()?)?);
    let directory = Rc::new(tempfile::tempdir_in(MEMORY)?);
    fs::write(directory.path().join("file"), "one")?;
    let how = format!(
        "`list(..).files()` of a directory with one file, {calls} times in sequence. The action goes \
         out on a waiting poll, and the reply comes on another connection. The call is made from a \
         task of the runtime that serves, as in a service. *From another thread*: a thread blocks \
         for each call, which adds two wake-ups between threads."
    );
    let (other, same) = ((Rc::clone(&pair), Rc::clone(&directory)), (pair, directory));
    Ok(Measure::new("List a directory of one file", how)
        .quantity("p50", "ms", Better::Less)
        .quantity("p99", "ms", Better::Less)
        .subject("list-folder", Role::Metaservice, move || {
            let (pair, directory) = &same;
            let (service, path) = (pair.service.clone(), directory.path().to_owned());
            let mut times = pair.runtime.block_on(pair.runtime.spawn(async move {
                let mut times = Vec::with_capacity(calls);
                for number in 0..WARM_UP + calls {
                    let begun = Instant::now();
                    list_one(&service, &path).await?;
                    if number >= WARM_UP {
                        times.push(begun.elapsed().as_secs_f64() * 1e3);
                    }
                }
                anyhow::Ok(times)
            }))??;
            Ok(percentiles(&mut times))
        })
        .subject("list-folder, from another thread", Role::Metaservice, move || {
            let (pair, directory) = &other;
            times(calls, Duration::ZERO, || {
                pair.runtime.block_on(list_one(&pair.service, directory.path()))
            })
        })
        .goal(Goal::absolute("list-folder", "p50", 0.15))
        .goal(Goal::absolute("list-folder", "p99", 0.5)))
}

async fn list_one(service: &MetaService, directory: &Path) -> anyhow::Result<()> {
    let files = service.list(directory.to_string_lossy()).files().await?;
    anyhow::ensure!(files.len() == 1, "{} files are listed", files.len());
    Ok(())
}

pub(super) fn prepare_many(setting: &Setting) -> anyhow::Result<Measure> {
    let (directories, files) = (100, setting.pick(200, 1000));
    let all = directories * files;
    let pair = Pair::idle(setting.agent()?)?;
    let tree = tempfile::tempdir_in(MEMORY)?;
    for directory in 0..directories {
        let directory = tree.path().join(format!("{directory:03}"));
        fs::create_dir(&directory)?;
        for file in 0..files {
            fs::write(directory.join(format!("file-{file:05}")), "")?;
        }
    }
    let path = tree.path().to_owned();
    let how = format!(
        "`list(..).files()` of {all} files in {directories} directories in memory, until the call \
         returns their names. The limit is `find -type f` that writes to a pipe, read to its end."
    );
    Ok(Measure::new("List a directory of many files", how)
        .quantity("time", "ms", Better::Less)
        .subject("find", Role::Limit, move || {
            let begun = Instant::now();
            let mut find = Command::new("find");
            let find = find.arg(&path).args(["-type", "f"]).stderr(Stdio::null()).output()?;
            let time = begun.elapsed().as_secs_f64() * 1e3;
            let lines = find.stdout.iter().filter(|byte| **byte == b'\n').count();
            anyhow::ensure!(lines == all, "find printed {lines} files");
            Ok(vec![("time", time)])
        })
        .subject("list-folder", Role::Metaservice, move || {
            let begun = Instant::now();
            let listed = pair.service.list(tree.path().to_string_lossy()).files();
            let files = pair.runtime.block_on(listed)?;
            let time = begun.elapsed().as_secs_f64() * 1e3;
            anyhow::ensure!(files.len() == all, "{} files are listed", files.len());
            Ok(vec![("time", time)])
        })
        .goal(Goal::ratio("list-folder", "time", 1.5, "find")))
}
