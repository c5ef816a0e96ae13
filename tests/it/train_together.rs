use crate::{train_generator, train_tokenizer};
use models::StoreServer;
use std::process::Command;
use tests::{
    training::{assert_equal, held_at_sheet, metrics, result, steps_logged},
    workspace::{Running, Workspace, run, start},
};

/// The store where processes meet, as `torchrun` opens one for those that it starts.
struct Meeting(StoreServer);

impl Meeting {
    fn open() -> Self {
        Self(StoreServer::open().expect("a store"))
    }

    /// `command` as one of `world_size` processes.
    fn join(&self, mut command: Command, (rank, world_size): (usize, usize)) -> Running {
        command.env("MASTER_ADDR", "localhost").env("TORCHELASTIC_USE_AGENT_STORE", "True");
        for (name, value) in [
            ("RANK", rank),
            ("WORLD_SIZE", world_size),
            ("LOCAL_RANK", rank),
            ("LOCAL_WORLD_SIZE", world_size),
            ("MASTER_PORT", self.0.port().into()),
        ] {
            command.env(name, value.to_string());
        }
        start(&mut command)
    }

    /// All of `world_size` processes, of which each runs what `command` makes.
    fn all(&self, world_size: usize, command: impl Fn() -> Command) -> Vec<Running> {
        (0..world_size).map(|rank| self.join(command(), (rank, world_size))).collect()
    }
}

/// To the end of all processes.
fn run_all(world_size: usize, command: impl Fn() -> Command) {
    let meeting = Meeting::open();
    let processes = meeting.all(world_size, command);
    processes.into_iter().for_each(|process| drop(process.finish().expect_code(0)));
}

/// Losses of two runs, step by step, within a hundred-thousandth: sums of other parts are rounded otherwise.
fn assert_close(workspace: &Workspace, found: &str, expected: &str) {
    let [found, expected] = [found, expected].map(|output| metrics(&workspace.path(output)));
    assert_eq!((&found[0], found.len()), (&expected[0], expected.len()));
    let mut compared = 0;
    for (found_line, expected_line) in found[1..].iter().zip(&expected[1..]) {
        for ((name, found), expected) in expected[0].iter().zip(found_line).zip(expected_line) {
            if !name.contains("loss") || expected.is_empty() {
                continue;
            }
            let [found, expected] = [found, expected].map(|value| value.parse::<f64>().expect("a number"));
            let difference = (found - expected).abs() / expected.abs().max(1e-3);
            assert!(difference < 1e-5, "{name} in {found_line:?}: {found}, expected {expected}");
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared} losses");
}

#[test]
fn several_processes_train_the_generator_that_one_trains() {
    let workspace = train_generator::prepared();
    let train = |output: &str, batches| train_generator::train_in_batches(&workspace, output, batches);
    run(&mut train("one", 4)).expect_code(0);
    run_all(2, || train("two", 2));
    run_all(4, || train("four", 1));
    assert_close(&workspace, "two", "one");
    assert_close(&workspace, "four", "one");
    assert_eq!(workspace.files("two").keys().filter(|name| name.starts_with("generator/")).count(), 3);
}

#[test]
fn two_processes_train_the_tokenizer_that_one_trains() {
    let workspace = train_tokenizer::prepared();
    let train = |output: &str| train_tokenizer::train(&workspace, output);
    run(train("one").arg("--gradient-accumulation=2")).expect_code(0);
    run_all(2, || train("two"));
    assert_close(&workspace, "two", "one");
}

/// Scores of every validation and of the finished weights: those that are counted equal, all others within a millionth.
fn assert_scored_alike(workspace: &Workspace, (found, expected): (&str, &str), published: &str) {
    let validated = |output: &str| {
        let lines = metrics(&workspace.path(output));
        let mut scores = Vec::new();
        for line in &lines[1..] {
            let cells =
                lines[0].iter().zip(line).filter(|(name, cell)| name.starts_with("validation_") && !cell.is_empty());
            scores.extend(cells.map(|(name, cell)| (name.clone(), cell.parse::<f64>().expect("a number"))));
        }
        let about = std::fs::read(workspace.path(output).join(published).join("training.json")).expect("a file");
        let about: serde_json::Value = serde_json::from_slice(&about).expect("JSON");
        add_numbers("final", &about["scores"], &mut scores);
        scores
    };
    let (found, expected) = (validated(found), validated(expected));
    assert!(expected.len() > 20 && found.len() == expected.len(), "{found:?}, not {expected:?}");
    for ((name, found), (other, expected)) in found.iter().zip(&expected) {
        assert_eq!(name, other);
        let is_counted = ["accuracy", "codebook", "images", "tokens"].iter().any(|counted| name.contains(counted));
        match is_counted && !name.contains("psnr") && !name.contains("ssim") {
            true => assert!(found == expected, "{name}: {found}, expected {expected}"),
            false => assert!((found / expected - 1.0).abs() < 1e-6, "{name}: {found}, expected {expected}"),
        }
    }
}

/// All numbers in `value`, each with its path.
fn add_numbers(path: &str, value: &serde_json::Value, numbers: &mut Vec<(String, f64)>) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| add_numbers(&format!("{path}.{name}"), value, numbers));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| add_numbers(path, value, numbers)),
        value => numbers.extend(value.as_f64().map(|number| (path.to_owned(), number))),
    }
}

#[test]
fn several_processes_score_together_what_one_scores() {
    // The weights do not move, so that nothing but the scoring can differ. Two batches are validated on: of three processes one has none.
    let still = |mut command: Command| {
        command.arg("--learning-rate=0");
        command
    };
    let workspace = train_generator::prepared();
    let train = |output: &str| still(train_generator::train_in_batches(&workspace, output, 1));
    run(&mut train("one")).expect_code(0);
    for (world_size, output) in [(2, "two"), (3, "three")] {
        run_all(world_size, || train(output));
        assert_scored_alike(&workspace, (output, "one"), "generator");
    }
    // What is published already is not scored again, by any of them.
    let about = workspace.files("two")["generator/training.json"].clone();
    run_all(2, || train("two"));
    assert_eq!(workspace.files("two")["generator/training.json"], about);

    let workspace = train_tokenizer::prepared();
    let train = |output: &str| still(train_tokenizer::train(&workspace, output));
    run(&mut train("one")).expect_code(0);
    for (world_size, output) in [(2, "two"), (3, "three")] {
        run_all(world_size, || train(output));
        assert_scored_alike(&workspace, (output, "one"), "tokenizer");
    }
}

#[test]
fn where_the_validation_of_one_process_fails_the_others_say_so() {
    let workspace = train_generator::prepared();
    train_generator::tokenize(&workspace, "copy", "adm-center-32");
    let meeting = Meeting::open();
    let held = held_at_sheet(&workspace, "run", 6);
    let train = |validation: &str| {
        let mut command = train_generator::train_in_batches(&workspace, "run", 1);
        command.env("RESTOK_VALIDATION_SOURCE", validation);
        command
    };
    let mut first = meeting.join(train("validation"), (0, 2));
    let second = meeting.join(train("copy"), (1, 2));
    let logged = || steps_logged(&workspace, "run") == 6;
    assert!(first.wait_until("six steps", logged), "it ended too early: {}", first.said());
    std::fs::remove_dir_all(workspace.path("copy")).expect("it is there");
    held.let_write();
    second.finish().expect_code(42).expect_message(&["copy"]);
    first.finish().expect_code(75).expect_message(&["rank 1 has ended", "copy"]);
    // The last checkpoint is of the steps before.
    assert!(workspace.path("run/checkpoints/step-00000010").exists());
}

#[test]
fn a_run_goes_on_after_deaths_and_signals_and_with_another_number_of_processes() {
    let workspace = train_generator::prepared();
    let train = |output: &str| train_generator::train_in_batches(&workspace, output, 2);
    let steps = train_generator::STEPS;
    run_all(2, || train("undisturbed"));
    let expected = result(&workspace, "undisturbed", "generator", steps);

    // Each of them killed once, while the first one is about to save: the other ends with the name of who is missing, for another try.
    for (lost, survivor) in [(1, 0), (0, 1)] {
        let meeting = Meeting::open();
        let output = format!("lost-{lost}");
        let held = held_at_sheet(&workspace, &output, 6);
        let mut processes = meeting.all(2, || train(&output));
        let logged = || steps_logged(&workspace, &output) == 6;
        assert!(processes[0].wait_until("six steps", logged), "it ended too early: {}", processes[0].said());
        processes[lost].kill();
        if lost == 0 {
            held.remove();
        } else {
            held.let_write();
        }
        let ended = processes.swap_remove(survivor).finish().expect_code(75);
        ended.expect_message(&[&format!("rank {lost} is lost, or did not answer")]);
        // Started again beside the same store, as torchrun does.
        let again = meeting.all(2, || train(&output));
        again.into_iter().for_each(|process| drop(process.finish().expect_code(0)));
        assert_equal(&result(&workspace, &output, "generator", steps), &expected);
    }

    // A signal to either stops both after the same step.
    for told in [0, 1] {
        let output = format!("told-{told}");
        let held = held_at_sheet(&workspace, &output, 6);
        let meeting = Meeting::open();
        let mut processes = meeting.all(2, || train(&output));
        let logged = || steps_logged(&workspace, &output) == 6;
        assert!(processes[0].wait_until("six steps", logged), "it ended too early: {}", processes[0].said());
        processes[told].signal(libc::SIGTERM);
        processes[told].wait_until_said("SIGTERM: finishing this step and writing a checkpoint");
        held.let_write();
        processes.into_iter().for_each(|process| drop(process.finish().expect_code(143)));
        assert!(steps_logged(&workspace, &output) < steps as usize, "it came to its end first");
        run_all(2, || train(&output));
        assert_equal(&result(&workspace, &output, "generator", steps), &expected);
    }

    // Begun by two, gone on with by one and by four that take the same images for an update.
    run_all(2, || {
        let mut command = train("elastic");
        command.arg("--stop-after=4");
        command
    });
    run(train_generator::train_in_batches(&workspace, "elastic", 4).arg("--stop-after=8")).expect_code(0);
    run_all(4, || train_generator::train_in_batches(&workspace, "elastic", 1));
    assert_close(&workspace, "elastic", "undisturbed");
}

#[test]
fn a_process_that_hangs_is_missed() {
    let workspace = train_generator::prepared();
    let meeting = Meeting::open();
    let held = held_at_sheet(&workspace, "run", 6);
    let mut processes = meeting.all(2, || {
        let mut command = train_generator::train_in_batches(&workspace, "run", 1);
        // Long enough for a busy machine on which the first process loads what it scores with while the other waits.
        command.arg("--group-timeout=40");
        command
    });
    let logged = || steps_logged(&workspace, "run") == 6;
    assert!(processes[0].wait_until("six steps", logged), "it ended too early: {}", processes[0].said());
    processes[1].signal(libc::SIGSTOP);
    held.let_write();
    let ended = processes.swap_remove(0).finish().expect_code(75);
    ended.expect_message(&["rank 1 is lost, or did not answer"]);
}

#[test]
fn processes_that_do_not_go_together_are_told_why() {
    let workspace = train_generator::prepared();
    let train = |output: &str| train_generator::train_in_batches(&workspace, output, 1);
    let meeting = Meeting::open();
    let mut other = train("run");
    other.arg("--seed=5");
    let processes = [meeting.join(train("run"), (0, 2)), meeting.join(other, (1, 2))];
    let [first, second] = processes.map(Running::finish);
    second.expect_code(42).expect_message(&["other settings than those of rank 0", "recipe.seed"]);
    first.expect_code(75).expect_message(&["rank 1 has ended", "other settings"]);

    let mut other = train("run");
    other.arg("--stop-after=3");
    let processes = [meeting.join(train("run"), (0, 2)), meeting.join(other, (1, 2))];
    let [_, second] = processes.map(Running::finish);
    second.expect_code(42).expect_message(&["at other steps than rank 0"]);

    let mut other = train("run");
    other.env("RESTOK_VALIDATION_SOURCE", "tokens");
    let processes = [meeting.join(train("run"), (0, 2)), meeting.join(other, (1, 2))];
    let [_, second] = processes.map(Running::finish);
    second.expect_code(42).expect_message(&["rank 1 validates on other images than rank 0: on", "tokens"]);

    // The first one ends before it has said where the run stands.
    std::fs::write(workspace.path("file"), "no folder").expect("a file of the test");
    let [first, second] = [0, 1].map(|rank| meeting.join(train("file"), (rank, 2))).map(Running::finish);
    first.expect_code(42);
    second.expect_code(75).expect_message(&["rank 0 has ended", "file"]);

    let mut alone = train("alone");
    alone.arg("--group-timeout=1");
    let meeting = Meeting::open();
    let ended = meeting.join(alone, (1, 3)).finish().expect_code(75);
    ended.expect_message(&["ranks 0, 2 did not appear within 1 s"]);

    let mut unaddressed = train("unaddressed");
    unaddressed.env("WORLD_SIZE", "2").env("RANK", "0");
    run(&mut unaddressed).expect_code(42).expect_message(&["MASTER_PORT"]);
}
