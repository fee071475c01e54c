//! Resolves an image and pulls it into a store: `cargo run --release -p fleet-registry --example pull -- REFERENCE FOLDER`.

use std::{error::Error, path::PathBuf, sync::Arc, time::Instant};

use fleet_oci::Platform;
use fleet_registry::{Client, RegistryConfig};
use fleet_store::Store;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let reference = arguments.next().ok_or("give a reference")?;
    let folder = PathBuf::from(arguments.next().ok_or("give a folder")?);
    let client = Client::new(&RegistryConfig::from_machine()?)?;
    let start = Instant::now();
    let digest = client.resolve(&reference, Platform::LinuxAmd64).await?;
    println!("{reference} is {digest} ({:.1?})", start.elapsed());
    let base = client.pull(&reference, &digest, Platform::LinuxAmd64, Arc::new(Store::open(&folder)?)).await?;
    for layer in &base.layers {
        println!("{} {} of {} bytes", layer.media_type, layer.size, layer.uncompressed);
    }
    println!("{:?} ({:.1?})", base.config, start.elapsed());
    Ok(())
}
