//! Images and archives, ours and those of strangers. One test program, since each more would be linked by itself.

#[path = "../support/raw_tar.rs"]
mod raw_tar;

mod fuzz_archives;
mod fuzz_config;
mod hostile;
mod round_trip;
