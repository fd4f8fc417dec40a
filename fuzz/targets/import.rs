//! If a configuration of HAProxy or nginx can be imported, the configuration that results has no errors.
#![no_main]

use acequia::config::read;
use acequia::import::{Origin, import};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for origin in [Origin::Haproxy, Origin::Nginx] {
        if let Ok(imported) = import(origin, text) {
            let report = read("imported.toml", &imported.text).err();
            assert!(report.is_none(), "{report:?}\n{}", imported.text);
        }
    }
});
