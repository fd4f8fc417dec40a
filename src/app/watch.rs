//! Requests a reload when the configuration file changes.

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use crate::config::read_regular;
use crate::file_watch::FileWatch;
use crate::reload::Reloader;

/// Requests a reload whenever the bytes of the file have changed. `loaded` is the text of the configuration in force.
/// Never returns while the runtime runs.
pub(super) async fn run(file: PathBuf, loaded: String, reloader: Reloader) {
    let mut before = Some(loaded.into_bytes());
    let mut watch = FileWatch::new(file.clone());
    while let Some(mut watching) = watch.watch().await {
        let now = bytes(&file).await;
        if now != before {
            before = now;
            // The reload itself logs its result.
            let _ = reloader.reload("a change of the file".to_owned()).await;
        }
        watching.changed().await;
        watch = watching;
    }
}

/// The bytes of the file; `None` if it cannot be read.
async fn bytes(file: &Path) -> Option<Vec<u8>> {
    let file = file.to_owned();
    spawn_blocking(move || read_regular(&file)).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reading_an_unchanged_file_causes_no_reload() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("acequia.toml");
        std::fs::write(&file, "same").unwrap();
        let (reloader, mut requests) = Reloader::new();
        tokio::select! {
            () = run(file, "same".to_owned(), reloader) => panic!("it has stopped watching"),
            _ = requests.recv() => panic!("a reload is requested"),
            () = sleep(Duration::from_secs(600)) => {} // the file is read every 10 s
        }
    }

    #[tokio::test]
    async fn a_change_between_the_load_and_the_watch_causes_a_reload() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("acequia.toml");
        std::fs::write(&file, "new").unwrap();
        let (reloader, mut requests) = Reloader::new();
        let running = run(file, "old".to_owned(), reloader);
        tokio::select! {
            () = running => panic!("it has stopped watching"),
            request = requests.recv() => assert_eq!(request.unwrap().by, "a change of the file"),
        }
    }
}
