//! The keys of `check = "exec"`.

use std::sync::Arc;

use super::super::value;
use super::reader::KindReader;
use super::{Problems, Section};
use crate::check::Check;
use crate::check::exec::{ExecCheck, KIND};

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

const EXAMPLE: &str = r#"command = ["/usr/lib/nagios/plugins/check_ssh", "-4"]"#;

fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<dyn Check> {
    let node = section.required("command", EXAMPLE, problems);
    let mut words = node
        .map_or_else(Vec::new, |node| value::command(node, EXAMPLE, problems))
        .into_iter();
    Arc::new(ExecCheck {
        program: words.next().unwrap_or_default(),
        arguments: words.collect(),
    })
}
