//! Checks the man pages and completions of the packages: every setting is in them, and the shells accept them.

use std::fs;
use std::path::Path;
use std::process::Command;

#[path = "../../../scripts/manual.rs"]
#[allow(dead_code, reason = "its main is for scripts/package.sh")]
mod generator;

#[test]
fn every_setting_is_in_the_page_and_the_completions_of_its_program() {
    let dir = tempfile::tempdir().expect("directory");
    let written = generator::write(dir.path()).expect("written");
    assert_eq!(written.len(), 16, "{written:?}");
    let read = |path: String| fs::read_to_string(dir.path().join(path)).expect("text");
    for command in generator::programs() {
        let name = command.get_name();
        // In roff, a minus that is not a hyphen is escaped.
        let page = read(format!("share/man/man1/{name}.1")).replace("\\-", "-");
        let bash = read(format!("share/bash-completion/completions/{name}"));
        let zsh = read(format!("share/zsh/vendor-completions/_{name}"));
        let fish = read(format!("share/fish/vendor_completions.d/{name}.fish"));
        let mut count = 0;
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let Some(long) = arg.get_long() else { continue };
            count += 1;
            assert!(page.contains(&format!("--{long}")), "{name}.1: --{long}");
            let env = arg.get_env().map(|env| env.to_string_lossy().into_owned()).unwrap_or_default();
            assert!(page.contains(&env), "{name}.1: {env}");
            assert!(bash.contains(&format!("--{long} ")), "{name} in bash: --{long}");
            assert!(zsh.contains(&format!("--{long}")), "_{name}: --{long}");
            assert!(fish.contains(&format!("-l {long} ")), "{name}.fish: {long}");
        }
        assert!(count > 10, "{name}: only {count} settings");
    }
}

/// Completions are scripts.
#[test]
fn the_shells_accept_the_completions() {
    let dir = tempfile::tempdir().expect("directory");
    let written = generator::write(dir.path()).expect("written");
    let mut checked = 0;
    for path in &written {
        let shell = match path.parent().and_then(Path::file_name).and_then(|name| name.to_str()) {
            Some("completions") => "bash",
            Some("vendor-completions") => "zsh",
            Some("vendor_completions.d") => "fish",
            _ => continue,
        };
        let mut command = Command::new(shell);
        let output = command.args(["-n".as_ref(), path.as_os_str()]).output();
        let output = output.unwrap_or_else(|error| panic!("{shell}: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{}: {said}", path.display());
        checked += 1;
    }
    assert_eq!(checked, 12);
}
