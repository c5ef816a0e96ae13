use crate::workspace;
use std::path::Path;
use tests::workspace::run;

#[test]
fn cuda_asked_for_and_not_there_is_said_in_one_line() {
    if Path::new("/proc/driver/nvidia").exists() {
        // With a driver the question is another one.
        eprintln!("skipped: this machine has an NVIDIA driver");
        return;
    }
    let workspace = workspace();
    workspace.sample_folder(5);
    for devices in ["cuda", "cuda:0", "cpu,cuda:1"] {
        let finished = run(workspace.tokenize("images", "out").args(["--devices", devices])).expect_code(42);
        let error = finished.stderr.lines().find(|line| line.contains("error")).unwrap_or_default();
        assert!(error.to_lowercase().contains("cuda"), "{}", finished.stderr);
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
        assert!(!workspace.path("out").exists(), "nothing was begun");
    }
    // What is found decides where nothing is asked for.
    run(workspace.tokenize("images", "out").args(["--devices", "auto"])).expect_code(0);
}
