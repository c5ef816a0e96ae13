use crate::workspace;
use insta::{assert_snapshot, with_settings};
use tests::workspace::run;

/// What differs from machine to machine and from run to run. What is left is every word of a report, and every number that the
/// row counts decide.
const FILTERS: [(&str, &str); 13] = [
    (r"\b[0-9a-f]{64}\b", "[sha256]"),
    (r"(file://)?/\S*/\.tmp[A-Za-z0-9]+", "[workspace]"),
    // The longest line of the settings holds the workspace's path.
    (r" +# ", " # "),
    (r"\bcpu-[a-z0-9_]+", "cpu-[kind]"),
    (r"(?m)^  (list|fetch|decode|queue|encode|write) .*$", "  $1 [measured]"),
    (r"The limit was .*", "The limit was [stage]"),
    (r"in \S+ ?\w*, \S+ a second", "in [time], [rate] a second"),
    // Tokens may differ in a few places between kinds of processors, and with them how they are used and stored.
    (r"(?m)^  (\d|all) .*$", "  $1 [codebook use]"),
    (r" +\[(\d+, )+… \d+ more\]", "  [tokens]"),
    (r"\d+(\.\d+)? (B|KiB)\b", "[size]"),
    (r"\d+(\.\d+)? bits a token", "[bits] a token"),
    // As wide as what stands below them, which is measured.
    (
        r"stage +items +a second +bytes +busy +waiting +mean depth",
        "stage  items  a second  bytes  busy  waiting  mean depth",
    ),
    (r"[ \t]+\n", "\n"),
];

#[test]
fn the_help_of_every_command_is_what_was_reviewed() {
    let workspace = workspace();
    for command in [
        "",
        "tokenize",
        "train-tokenizer",
        "train-generator",
        "generate",
        "sweep",
        "evaluate",
        "compare",
        "finalize",
        "verify",
        "inspect",
        "watch",
        "reconstruct",
        "report",
        "doctor",
        "worker",
        "submit",
        "submit slurm",
        "submit kubernetes",
    ] {
        for help in ["-h", "--help"] {
            let finished = run(&mut workspace.restok(command.split_whitespace().chain([help]))).expect_code(0);
            assert!(finished.stderr.is_empty(), "help belongs on standard output: {}", finished.stderr);
            let name = format!(
                "help_{}_{}",
                if command.is_empty() { "restok".to_owned() } else { command.replace(' ', "-") },
                help.trim_start_matches('-')
            );
            // clap shows the name the program was started by.
            let filters = [("restok-under-test", "restok")];
            with_settings!({ filters => filters, omit_expression => true }, { assert_snapshot!(name, finished.stdout) });
        }
    }
}

#[test]
fn the_reports_of_a_run_are_what_was_reviewed() {
    let workspace = workspace();
    workspace.sample_folder(24);
    let tokenized = run(&mut workspace.tokenize("images", "out")).expect_code(0);
    let verified = run(&mut workspace.restok(["verify", "out"])).expect_code(0);
    let inspected = run(&mut workspace.restok(["inspect", "out"])).expect_code(0);
    let shown = run(workspace.tokenize("images", "out").arg("--show-settings")).expect_code(0);
    with_settings!({ filters => FILTERS, omit_expression => true }, {
        assert_snapshot!("report_tokenize", tokenized.stdout);
        assert_snapshot!("report_verify", verified.stdout);
        assert_snapshot!("report_inspect", inspected.stdout);
        assert_snapshot!("show_settings", shown.stdout);
    });
}

#[test]
fn nothing_typed_shows_the_help_and_a_typing_error_what_was_meant() {
    let workspace = workspace();
    let nothing = run(&mut workspace.restok([])).expect_code(42);
    assert!(nothing.stderr.contains("Usage: restok"), "{}", nothing.stderr);
    run(&mut workspace.restok(["tokenise"])).expect_code(42).expect_message(&["tokenize"]);
    let version = run(&mut workspace.restok(["--version"])).expect_code(0);
    assert!(
        version.stdout.contains(env!("CARGO_PKG_VERSION")) && version.stdout.contains("2.13.0"),
        "{}",
        version.stdout
    );
}

#[test]
fn logs_in_json_are_one_object_a_line_and_reports_stay_on_standard_output() {
    let workspace = workspace();
    workspace.sample_folder(8);
    let finished =
        run(workspace.tokenize("images", "out").args(["--log-format", "json", "--log-level", "debug"])).expect_code(0);
    let lines: Vec<_> = finished.stderr.lines().collect();
    assert!(!lines.is_empty());
    for line in lines {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.is_object(), "{line}");
    }
    assert!(!finished.stdout.is_empty());
}
