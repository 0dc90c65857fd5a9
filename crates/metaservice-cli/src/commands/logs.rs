//! `metaservice logs [-f] [--since TIME] [--tail N] JOB`: what a job has logged, byte for byte.
