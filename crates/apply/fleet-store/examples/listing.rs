//! How long it takes to see that nothing changed: lists a project's folder again and again through its stat cache.
//!
//! `cargo run --release -p fleet-store --example listing -- PROJECT FOLDER`: the third and later lines are the no-op; files
//! must be older than two seconds to be believed.

use std::{path::Path, time::Instant};

use fleet_model::{Links, Listing, RelPath};
use fleet_store::{Project, StatCache, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (project, folder) = arguments.next().zip(arguments.next()).ok_or("give a project and a folder in it")?;
    let (project, folder) = (Path::new(&project), RelPath::new(&folder)?);
    for _ in 0..8 {
        let start = Instant::now();
        let store = Store::open(project)?;
        let files = Project::open(project, StatCache::load(&store))?;
        let opened = start.elapsed();
        let Listing::Folder(found) = files.list(&folder, Links::Kept) else { return Err("that is no folder".into()) };
        let listed = start.elapsed();
        files.save_cache()?;
        let read = files.cache().contents_read();
        println!(
            "{} paths, {read} read: cache opened {opened:.1?}, listed {:.1?}, whole {:.1?}",
            found.len(),
            listed - opened,
            start.elapsed()
        );
    }
    Ok(())
}
