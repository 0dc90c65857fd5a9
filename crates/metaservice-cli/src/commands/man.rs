//! `metaservice man [DIR]`: the manual pages, one for each verb, from the same words as --help.

use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::args::Cli;
use crate::status::ExitStatus;

pub(crate) fn man(folder: Option<&Path>) -> Result<ExitStatus> {
    let mut cli = Cli::command();
    match folder {
        None => clap_mangen::Man::new(cli).render(&mut std::io::stdout())?,
        Some(folder) => {
            let cannot = || format!("cannot write to {}", folder.display());
            std::fs::create_dir_all(folder).with_context(cannot)?;
            cli.build();
            clap_mangen::generate_to(cli, folder).with_context(cannot)?;
        }
    }
    Ok(ExitStatus::SUCCESS)
}
