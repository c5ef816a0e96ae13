use crate::workspace;
use pipeline::testing::returns;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};
use tests::{
    digest,
    workspace::{run, text},
};

/// The command run by a shell, after `preparation` in the same shell.
fn in_shell(command: &Command, preparation: &str, wrapper: &[&str]) -> Command {
    let words = [wrapper, &["sh", "-c"]].concat();
    let mut shell = Command::new(words[0]);
    shell.args(&words[1..]).arg(format!("{preparation}; exec \"$@\"")).arg("sh");
    shell.arg(command.get_program()).args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(command.get_current_dir().expect("a workspace")).stdin(Stdio::null());
    shell
}

#[test]
fn a_file_that_may_not_grow_fails_the_run_and_the_next_start_goes_on() {
    let workspace = workspace();
    workspace.sample_folder(96);
    run(&mut workspace.tokenize("images", "clean")).expect_code(0);
    // No file above two blocks (1 or 2 KiB, as the shell counts): the tables do not fit. The signal is ignored, so that the
    // program gets the error that a full disk gives.
    let limited = in_shell(&workspace.tokenize("images", "out"), "trap '' XFSZ; ulimit -f 2", &[]);
    // Through pipes: what the program says must not count as a file.
    let finished = returns("the end of a run without room", || { limited }.output()).expect("a shell");
    let said = String::from_utf8_lossy(&finished.stderr);
    assert!(matches!(finished.status.code(), Some(42 | 75)), "{}: {said}", finished.status);
    assert!(
        said.contains("out")
            && said.contains("no space left")
            && said.contains("make room")
            && !said.contains("panicked"),
        "{said}"
    );
    assert!(!digest::is_finished(&workspace.files("out")));
    run(&mut workspace.tokenize("images", "out")).expect_code(0);
    assert_eq!(workspace.digests("out"), workspace.digests("clean"));
    run(&mut workspace.restok(["verify", "out"])).expect_code(0);
}

#[test]
fn a_full_disk_fails_the_run_and_the_next_start_goes_on() {
    let workspace = workspace();
    workspace.sample_folder(96);
    run(&mut workspace.tokenize("images", "clean")).expect_code(0);
    fs::create_dir(workspace.path("out")).expect("a folder");
    fs::create_dir(workspace.path("left")).expect("a folder");
    let namespace = ["unshare", "--user", "--map-root-user", "--mount"];
    let mounts = "mount -t tmpfs -o size=64k,mode=777 tmpfs out";
    let mut probe = Command::new(namespace[0]);
    probe.args(&namespace[1..]).args(["sh", "-c", mounts]).current_dir(workspace.path(""));
    if !probe.output().is_ok_and(|probe| probe.status.success()) {
        // Some machines forbid it; the limit on file sizes above walks the same way through the program.
        eprintln!("skipped: this machine does not let a test mount a small disk");
        return;
    }
    // What is on the small disk at the end is carried over, for the disk goes with the process.
    let command = workspace.tokenize("images", "out");
    let mut shell = in_shell(&command, "true", &namespace);
    let script = format!("{mounts} && \"$@\"; code=$?; cp -r out/. left/; exit $code");
    shell = {
        let mut with_script = Command::new(namespace[0]);
        with_script.args(&namespace[1..]).args(["sh", "-c", &script, "sh"]);
        with_script.arg(command.get_program()).args(command.get_args());
        with_script.env_clear().envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
        with_script.current_dir(workspace.path(""));
        with_script
    };
    let finished = run(&mut shell);
    assert!(matches!(finished.status.code(), Some(42 | 75)), "{}: {}", finished.status, finished.stderr);
    finished.expect_message(&["no space left", "make room"]);
    let left = workspace.files("left");
    assert!(!digest::is_finished(&left));
    // On a disk with room, the same job goes on from what was committed.
    fs::remove_dir(workspace.path("out")).expect("the empty folder");
    fs::rename(workspace.path("left"), workspace.path("out")).expect("a rename");
    run(&mut workspace.tokenize("images", "out")).expect_code(0);
    assert_eq!(workspace.digests("out"), workspace.digests("clean"));
}

#[test]
fn an_output_that_cannot_be_written_is_refused_by_its_path() {
    let workspace = workspace();
    workspace.sample_folder(8);
    // A file where a folder should be stops root as well.
    fs::write(workspace.path("file"), "x").expect("a file");
    for output in ["file", "file/out"] {
        let finished = run(&mut workspace.tokenize("images", output));
        assert!(matches!(finished.status.code(), Some(42 | 75)), "{}: {}", finished.status, finished.stderr);
        finished.expect_message(&["file"]);
    }
    let closed = workspace.path("closed");
    fs::create_dir(&closed).expect("a folder");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).expect("read-only");
    if fs::write(closed.join("probe"), "x").is_err() {
        run(&mut workspace.tokenize("images", &text(&closed.join("out"))))
            .expect_code(42)
            .expect_message(&["closed", "ermission"]);
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).expect("writable");
}

#[test]
fn a_report_that_nobody_reads_to_the_end_is_no_failure() {
    let workspace = workspace();
    workspace.sample_folder(8);
    run(&mut workspace.tokenize("images", "out")).expect_code(0);
    let mut command = workspace.restok(["inspect", "out", "--format", "json"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn().expect("the program");
    let finished = returns("the end of a report that nobody reads", || child.wait_with_output()).expect("its end");
    let said = String::from_utf8_lossy(&finished.stderr);
    assert!(!said.contains("panicked"), "{said}");
}
