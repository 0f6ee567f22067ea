//! A bare API server for recorded requests: `serve PORT DIRECTORY TOKENS.csv`, with the flags the recordings were made with.

use std::path::PathBuf;
use std::sync::Arc;

use corten_apiserver::{ApiServer, Config};
use corten_store::sqlite;
use corten_task::Tasks;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: serve PORT DIRECTORY TOKENS.csv";
    let port: u16 = args.next().ok_or(usage)?.parse()?;
    let directory = PathBuf::from(args.next().ok_or(usage)?);
    let tokens = PathBuf::from(args.next().ok_or(usage)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let tasks = Tasks::root("serve");
        let store = sqlite::Sqlite::open(sqlite::Config::new(directory.join("store")), &tasks)?;
        let config = Config {
            bind_address: [127, 0, 0, 1].into(),
            secure_port: port,
            advertise_address: Some([127, 0, 0, 1].into()),
            token_auth_file: Some(tokens),
            service_cluster_ip_range: vec!["10.96.0.0/16".parse()?],
            ..Config::new(directory.join("pki"))
        };
        let api = ApiServer::start(config, Arc::new(store), &tasks).await?;
        println!("https://{}", api.address());
        tokio::signal::ctrl_c().await?;
        tasks.stop().await;
        Ok(())
    })
}
