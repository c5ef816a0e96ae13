use crate::workspace;
use std::fs;
use tests::workspace::{Workspace, run};

/// The line of `--show-settings` for one key.
fn shown(workspace: &Workspace, key: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let finished = run(workspace
        .restok(["tokenize", "--show-settings", "--source", "in", "--output", "out", "--tokenizer", "t"])
        .args(arguments)
        .envs(environment.iter().copied()))
    .expect_code(0);
    let line = finished.stdout.lines().find(|line| line.starts_with(&format!("{key} =")));
    line.unwrap_or_else(|| panic!("no {key} in:\n{}", finished.stdout)).to_owned()
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let workspace = workspace();
    fs::write(workspace.path("job.toml"), "[tokenize]\nbatch-size = 5\n[limits]\nretry-attempts = 5\n")
        .expect("a file");
    let file = ["--settings", "job.toml"];
    let variables = [("RESTOK_BATCH_SIZE", "6"), ("RESTOK_RETRY_ATTEMPTS", "6")];
    for (key, flag, default) in [("batch-size", "--batch-size", "32"), ("retry-attempts", "--retry-attempts", "20")] {
        let all = [file[0], file[1], flag, "7"];
        for (arguments, environment, value, origin) in [
            (&[][..], &[][..], default, "default"),
            (&file[..], &[][..], "5", "settings file"),
            (&file[..], &variables[..], "6", "environment"),
            (&all[..], &variables[..], "7", "flag"),
        ] {
            let line = shown(&workspace, key, arguments, environment);
            assert!(line.starts_with(&format!("{key} = {value} ")) && line.contains(origin), "{line}");
        }
    }
}

#[test]
fn a_settings_file_is_enough_to_run_and_what_is_shown_is_one() {
    let workspace = workspace();
    workspace.sample_folder(8);
    workspace.tokenizer();
    let settings = "[tokenize]\nsource = \"images\"\noutput = \"out\"\ntokenizer = \"tokenizer\"\ndevices = \"cpu\"\n\
                    batch-size = 4\nunit-size = 4\nmax-reject-rate = \"50%\"\n";
    fs::write(workspace.path("job.toml"), settings).expect("a settings file");
    let shown = run(&mut workspace.restok(["tokenize", "--settings", "job.toml", "--show-settings"])).expect_code(0);
    assert!(!workspace.path("out").exists(), "showing settings ran the job");
    fs::write(workspace.path("shown.toml"), shown.stdout).expect("a settings file");
    run(&mut workspace.restok(["tokenize", "--settings", "shown.toml"])).expect_code(0);
    let again = run(workspace.restok(["verify", "out"]).env("RESTOK_SETTINGS", "shown.toml"));
    again.expect_code(0);
}

#[test]
fn a_key_that_nobody_knows_is_refused_by_key_and_file() {
    let workspace = workspace();
    for (text, word) in [
        ("[tokenize]\nbatchsize = 4\n", "batchsize"),
        ("[tokenise]\nbatch-size = 4\n", "tokenise"),
        ("[limits]\nfetch-requests = \"many\"\n", "fetch-requests"),
        ("[tokenize]\nbatch-size = \n", "job.toml"),
    ] {
        fs::write(workspace.path("job.toml"), text).expect("a settings file");
        let mut command = workspace.tokenize("images", "out");
        run(command.args(["--settings", "job.toml"])).expect_code(42).expect_message(&["job.toml", word]);
    }
    let mut command = workspace.tokenize("images", "out");
    run(command.args(["--settings", "missing.toml"])).expect_code(42).expect_message(&["missing.toml"]);
    run(workspace.tokenize("images", "out").env("RESTOK_FETCH_REQUESTS", "many"))
        .expect_code(42)
        .expect_message(&["many"]);
}
