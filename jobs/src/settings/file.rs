//! The settings file: a section for each command, `[limits]` and `[general]` for all of them. A command within a command has a section within
//! a section, `[submit.slurm]`, and goes by that name everywhere here.

use super::{GeneralOptions, LimitOptions, SettingsError};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, parser::ValueSource};
use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Sections of every command.
pub(super) const LIMITS: &str = "limits";
pub(super) const GENERAL: &str = "general";

/// The command without a section: a worker's settings are its job's.
pub(crate) const WORKER: &str = "worker";

/// What a settings file says, held to what can be typed. Keys are flags without their dashes.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingsFile {
    /// By section, then by the option's name; several values where the option takes several.
    sections: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Keys that have another name by now: section, key, and the name.
    older_keys: Vec<(String, String, String)>,
}

impl SettingsFile {
    /// Reads a file; no file is an empty one. All of its sections are checked, whichever command is to run.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or holds a section, key or value that no command of `program` knows.
    pub(crate) fn read(path: Option<&Path>, program: &Command) -> Result<Self, SettingsError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let wrong = |problem: String| SettingsError::File { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let table = DeTable::parse(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
        let text = FileText { path: path.to_owned(), text: &text };
        let mut written = Vec::new();
        for (name, value) in table.get_ref() {
            let section = name.get_ref().to_string();
            if !find_command(program, &section).is_some_and(Command::has_subcommands) {
                written.push((section, name.span(), value));
                continue;
            }
            let within = text.table(&section, value)?.iter();
            written.extend(within.map(|(name, value)| (format!("{section}.{}", name.get_ref()), name.span(), value)));
        }
        let (mut sections, mut older_keys) = (BTreeMap::new(), Vec::new());
        for (section, span, value) in written {
            let Some(options) = options_of(program, &section) else {
                let known = commands(program).into_iter().chain([LIMITS, GENERAL].map(str::to_owned));
                let known = known.collect::<Vec<_>>().join(", ");
                return Err(text.wrong(span, format!("unknown section `{section}`, expected one of {known}")));
            };
            let keys = text.table(&section, value)?;
            let mut values = BTreeMap::new();
            for (key, value) in keys {
                let option = find(&options, key.get_ref()).ok_or_else(|| {
                    let keys: Vec<_> = options.iter().map(key_of).collect();
                    let problem = format!("unknown key `{}`, expected one of {}", key.get_ref(), keys.join(", "));
                    text.wrong(key.span(), problem)
                })?;
                let words = text.words(option, key.get_ref(), value)?;
                text.check(option, key, &words)?;
                if key_of(option) != key.get_ref().as_ref() {
                    older_keys.push((section.clone(), key.get_ref().to_string(), key_of(option)));
                }
                if values.insert(option.get_id().to_string(), words).is_some() {
                    let problem = format!("{} is there under an older name as well", key_of(option));
                    return Err(text.wrong(key.span(), problem));
                }
            }
            sections.insert(section, values);
        }
        Ok(Self { sections, older_keys })
    }

    /// The command line with what the file says of a command in place of defaults, for options that are neither `typed` nor exported.
    pub(crate) fn apply(&self, program: Command, command: &str, typed: &ArgMatches) -> Command {
        let program = program.mut_args(|option| self.with_default(option, &[GENERAL], typed));
        let sections = [command, LIMITS];
        let path: Vec<&str> = command.split('.').collect();
        mut_command(program, &path, |command| command.mut_args(|option| self.with_default(option, &sections, typed)))
    }

    fn with_default(&self, option: Arg, sections: &[&str], typed: &ArgMatches) -> Arg {
        let id = option.get_id().as_str();
        let is_told = |source| matches!(source, ValueSource::CommandLine | ValueSource::EnvVariable);
        let is_known = typed.try_contains_id(id).is_ok();
        let mut values = sections.iter().filter_map(|section| self.values(section, id));
        match values.next() {
            // Its values are apart already: one of them may hold what parts those that are typed.
            Some(values) if !is_known || !typed.value_source(id).is_some_and(is_told) => {
                option.value_delimiter(None).default_values(values.clone())
            }
            _ => option,
        }
    }

    /// Names of `command` that were typed, exported or written and have another one by now, each with that.
    pub(crate) fn older_names(&self, program: &Command, command: &str, typed: &[String]) -> Vec<String> {
        let mut names = Vec::new();
        for option in options_of(program, command).unwrap_or_default() {
            for alias in option.get_all_aliases().unwrap_or_default() {
                let (flag, now) = (format!("--{alias}"), key_of(&option));
                if typed.iter().any(|word| *word == flag || word.starts_with(&format!("{flag}="))) {
                    names.push(format!("{flag} is --{now}"));
                }
                let variable = super::variable(alias);
                if crate::environment::lookup(&variable).is_some() {
                    names.push(format!("{variable} is {}", super::variable(&now)));
                }
            }
        }
        let keys = self.older_keys.iter().filter(|(section, ..)| section == command);
        names.extend(keys.map(|(section, key, now)| format!("{key} in [{section}] is {now}")));
        names
    }

    /// Whether a section gives an option a value.
    pub(super) fn has(&self, section: &str, option: &str) -> bool {
        self.values(section, option).is_some()
    }

    fn values(&self, section: &str, option: &str) -> Option<&Vec<String>> {
        self.sections.get(section)?.get(option)
    }
}

/// A command by its name, one within another as `submit.slurm`.
pub(crate) fn find_command<'a>(program: &'a Command, name: &str) -> Option<&'a Command> {
    name.split('.').try_fold(program, |command, name| command.find_subcommand(name))
}

/// The names of all commands that have options of their own.
fn commands(program: &Command) -> Vec<String> {
    let within = |command: &Command| match command.has_subcommands() {
        true => commands(command).into_iter().map(|inner| format!("{}.{inner}", command.get_name())).collect(),
        false => vec![command.get_name().to_owned()],
    };
    program.get_subcommands().filter(|command| command.get_name() != WORKER).flat_map(within).collect()
}

/// Changes the command at the end of a path of names.
fn mut_command(program: Command, path: &[&str], change: impl FnOnce(Command) -> Command) -> Command {
    // A closure of its own type at each step would be a type without end.
    fn at(program: Command, path: &[&str], change: Box<dyn FnOnce(Command) -> Command + '_>) -> Command {
        match path {
            [] => change(program),
            [name, rest @ ..] => program.mut_subcommand(name, |command| at(command, rest, change)),
        }
    }
    at(program, path, Box::new(change))
}

/// The options that a section may set, in the order of their declaration; `None` for a section that nobody knows.
pub(super) fn options_of(program: &Command, section: &str) -> Option<Vec<Arg>> {
    let of = |command: Command| command.get_arguments().cloned().collect::<Vec<_>>();
    let (limits, general) =
        (of(LimitOptions::augment_args(Command::new(LIMITS))), of(GeneralOptions::augment_args(Command::new(GENERAL))));
    let names = |options: &[Arg]| options.iter().map(|option| option.get_id().clone()).collect::<Vec<_>>();
    match section {
        GENERAL => Some(general),
        LIMITS => Some(limits),
        command => {
            let command = find_command(program, command).filter(|command| command.get_name() != WORKER)?;
            let others = [names(&limits), names(&general)].concat();
            // Another command with its options is said for one run.
            let is_own = |option: &&Arg| !option.is_trailing_var_arg_set() && !others.contains(option.get_id());
            Some(command.get_arguments().filter(is_own).cloned().collect())
        }
    }
}

/// Whether an option takes several values.
pub(super) fn is_list(option: &Arg) -> bool {
    option.get_value_delimiter().is_some() || matches!(option.get_action(), ArgAction::Append)
}

/// An option's key.
pub(super) fn key_of(option: &Arg) -> String {
    option.get_id().as_str().replace('_', "-")
}

/// The option of a key, by its name now or an older one.
fn find<'a>(options: &'a [Arg], key: &str) -> Option<&'a Arg> {
    let is_named =
        |option: &&Arg| key_of(option) == key || option.get_all_aliases().is_some_and(|aliases| aliases.contains(&key));
    options.iter().find(is_named)
}

/// A file and its text, for errors with their line.
struct FileText<'a> {
    path: PathBuf,
    text: &'a str,
}

impl FileText<'_> {
    fn wrong(&self, span: Range<usize>, problem: String) -> SettingsError {
        let line = self.text[..span.start].matches('\n').count() + 1;
        SettingsError::File { path: self.path.clone(), problem: format!("line {line}: {problem}") }
    }

    /// The keys of a section.
    fn table<'a, 'b>(&self, section: &str, value: &'a Spanned<DeValue<'b>>) -> Result<&'a DeTable<'b>, SettingsError> {
        match value.get_ref() {
            DeValue::Table(keys) => Ok(keys),
            _ => Err(self.wrong(value.span(), format!("{section}: expected a section with keys"))),
        }
    }

    /// The values of an option: those of a list as they are, those of a text parted as if it had been typed.
    fn words(&self, option: &Arg, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, SettingsError> {
        match (value.get_ref(), option.get_value_delimiter()) {
            (DeValue::Array(_), _) if !is_list(option) => {
                Err(self.wrong(value.span(), format!("{key}: found a list, expected one value")))
            }
            (DeValue::Array(values), _) => values.iter().map(|value| self.word(key, value)).collect(),
            (DeValue::String(text), Some(delimiter)) => Ok(text.split(delimiter).map(str::to_owned).collect()),
            _ => Ok(vec![self.word(key, value)?]),
        }
    }

    /// A value as it would be typed.
    fn word(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String, SettingsError> {
        let written = &self.text[value.span()];
        let wrong =
            || self.wrong(value.span(), format!("{key}: found {written}, expected text, a number, true or false"));
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Boolean(_) | DeValue::Float(_) => Ok(written.replace('_', "")),
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
                .map(|number| number.to_string())
                .map_err(|_| wrong()),
            DeValue::Array(_) | DeValue::Datetime(_) | DeValue::Table(_) => Err(wrong()),
        }
    }

    /// Has clap read a value as if it had been typed.
    fn check(&self, option: &Arg, key: &Spanned<impl AsRef<str>>, words: &[String]) -> Result<(), SettingsError> {
        // What is no flag stands behind two dashes, whatever it begins with.
        let typed = words.iter().map(|word| option.get_long().map_or(word.clone(), |flag| format!("--{flag}={word}")));
        let typed = option.is_positional().then(|| "--".to_owned()).into_iter().chain(typed);
        let alone = Command::new("settings").no_binary_name(true).disable_help_flag(true);
        let read = alone.arg(option.clone().value_delimiter(None)).try_get_matches_from(typed);
        read.map(drop).map_err(|error| {
            let told = error.to_string();
            // What follows is advice for those who type.
            let told: Vec<&str> = told.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
            let told = told.join(" ");
            let told = told.strip_prefix("error: ").unwrap_or(&told);
            self.wrong(key.span(), format!("{}: {told}", key.get_ref().as_ref()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    fn read(text: &str) -> Result<SettingsFile, SettingsError> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it can be written");
        SettingsFile::read(Some(file.path()), &cli::command())
    }

    /// What the program would run with, with this file and these arguments.
    fn values(file: &str, arguments: &str, option: &str) -> Vec<String> {
        values_of("tokenize", file, arguments, option)
    }

    fn values_of(command: &str, file: &str, arguments: &str, option: &str) -> Vec<String> {
        let typed = || ["restok", command].into_iter().chain(arguments.split_whitespace());
        let without = cli::command().try_get_matches_from(typed()).expect("these arguments are right");
        let (_, without) = without.subcommand().expect(command);
        let program = read(file).expect("this file is right").apply(cli::command(), command, without);
        let matches = program.try_get_matches_from(typed()).expect("these arguments are right");
        let (_, matches) = matches.subcommand().expect(command);
        let values = matches.get_raw(option).expect(option);
        values.map(|value| value.to_str().expect("text").to_owned()).collect()
    }

    #[test]
    fn a_file_sets_any_option_in_its_section() {
        let file = r#"
            [general]
            log-format = "json"
            [limits]
            fetch-requests = 1_8
            [tokenize]
            source = "s3://bucket/train"
            crop = "adm-center-256-flip"
            max-reject-rate = 0.02
            devices = "cuda:0,cuda:1"
            dry-run = true
            [generate]
            classes = "1,2"
            [train-generator]
            source = ["a", "b"]
            "#;
        for (option, value) in [
            ("log_format", "json"),
            ("fetch_requests", "18"),
            ("source", "s3://bucket/train"),
            ("crop", "adm-center-256-flip"),
            ("max_reject_rate", "0.02"),
            ("devices", "cuda:0,cuda:1"),
            ("dry_run", "true"),
            ("unit_size", "16384"),
        ] {
            assert_eq!(values(file, "", option), [value], "{option}");
        }
        assert_eq!(values(file, "--dry-run=false --fetch-requests 3", "dry_run"), ["false"]);
        assert_eq!(values(file, "--dry-run=false --fetch-requests 3", "fetch_requests"), ["3"]);
    }

    #[test]
    fn an_element_of_a_list_is_one_value_and_a_text_is_parted_as_if_typed() {
        let file = r#"
            [train-generator]
            class-names = ["T-shirt, top", "bag"]
            source = "a,b"
            [sweep]
            guidance-scale = [1, 2.5]
            allow = []
            [report]
            output = ["-x", "--fast"]
            [limits]
            fetch-requests = 0x1_0
            "#;
        assert_eq!(values_of("train-generator", file, "", "class_names"), ["T-shirt, top", "bag"]);
        assert_eq!(values_of("train-generator", file, "--class-names a,b", "class_names"), ["a", "b"]);
        assert_eq!(values_of("train-generator", file, "", "source"), ["a", "b"]);
        assert_eq!(values_of("sweep", file, "", "guidance_scale"), ["1", "2.5"]);
        assert_eq!(values_of("sweep", file, "--guidance-scale 3,4", "guidance_scale"), ["3", "4"]);
        assert_eq!(values_of("report", file, "", "output"), ["-x", "--fast"]);
        assert_eq!(values_of("report", file, "", "fetch_requests"), ["16"]);
    }

    #[test]
    fn an_unknown_key_is_named_with_file_and_line() {
        let error = read("[tokenize]\nsource = 'x'\nbatchsize = 3\n").expect_err("batchsize is no key").to_string();
        assert!(error.contains("batchsize") && error.contains("line 3") && error.contains("batch-size"), "{error}");
        let error = read("[tokenise]\n").expect_err("tokenise is no section").to_string();
        assert!(error.contains("tokenise") && error.contains("settings file"), "{error}");
        for (text, section) in
            [("tokenize = 3\n", "tokenize"), ("submit = 3\n", "submit"), ("submit.slurm = 3\n", "submit.slurm")]
        {
            let error = read(text).expect_err("a key is no section").to_string();
            assert!(error.contains("line 1") && error.contains(&format!("{section}: expected a section")), "{error}");
        }
    }

    #[test]
    fn a_command_within_a_command_has_a_section_within_a_section() {
        let file = read("[submit.slurm]\npartition = 'gpu'\ntasks = 8\n").expect("sections");
        let typed = ["restok", "submit", "slurm", "--tasks=4", "tokenize", "--tasks=9"];
        let without = cli::command().try_get_matches_from(typed).expect("right arguments");
        let (_, submit) = without.subcommand().expect("submit");
        let (_, slurm) = submit.subcommand().expect("slurm");
        let matches = file.apply(cli::command(), "submit.slurm", slurm).try_get_matches_from(typed).expect("the same");
        let matches = matches.subcommand().expect("submit").1.subcommand().expect("slurm").1;
        assert_eq!(matches.get_one::<String>("partition").expect("of the file"), "gpu");
        assert_eq!(matches.get_one::<u32>("tasks").copied(), Some(4));
        for (wrong, expected) in [
            ("[submit.slurm]\njob = ['tokenize']\n", "unknown key `job`"),
            ("[submit.pbs]\n", "unknown section `submit.pbs`"),
            ("[submit]\npartition = 'gpu'\n", "unknown section `submit.partition`"),
        ] {
            let error = read(wrong).expect_err(wrong).to_string();
            assert!(error.contains(expected) && error.contains("line"), "{error}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_by_its_line() {
        for wrong in [
            "batch-size = 'many'",
            "max-reject-rate = 1.5",
            "crop = 'center'",
            "precision = 32",
            "image-id = 'x'",
            "unit-size = -1",
            "dry-run = 'perhaps'",
            "split = 2026-11-27",
            "source = ['a', 'b']",
            "batch-size = []",
            "image-extensions = ['jpg', 'png']",
            "unit-size = 999999999999999999999999999999",
        ] {
            let error = read(&format!("[tokenize]\n{wrong}\n")).expect_err(wrong).to_string();
            assert!(error.contains("line 2"), "{error}");
        }
    }

    #[test]
    fn hostile_files_are_read_or_refused_by_name() {
        let sound = br#"# every kind of value
            [general]
            log-format = "json"
            [tokenize]
            source = "s3://bucket/{0000..1023}.tar"
            crop = "adm-ten-crop-281-256"
            batch-size = "auto"
            max-reject-rate = "2%"
            devices = "cuda:0,cuda:1"
            image-extensions = "jpg,png"
            dry-run = true
            [generate]
            classes = "207,360"
            guidance-scale = 4.5
            [evaluate]
            keep = [1, 2, 4]
            "#;
        let (file, program) = (tempfile::NamedTempFile::new().expect("a temporary file"), cli::command());
        SettingsFile::read(Some(file.path()), &program).expect("an empty file says nothing");
        pipeline::testing::fuzz(file!(), 400, &[sound.to_vec()], |bytes| {
            std::fs::write(file.path(), bytes).expect("it can be written");
            let name = file.path().display().to_string();
            match SettingsFile::read(Some(file.path()), &program) {
                Err(error) if !error.to_string().contains(&name) => {
                    Err(proptest::test_runner::TestCaseError::fail(error.to_string()))
                }
                _ => Ok(()),
            }
        });
    }

    #[test]
    fn a_missing_file_is_named() {
        let read = SettingsFile::read(Some(Path::new("/nowhere/restok.toml")), &cli::command());
        let error = read.expect_err("there is none").to_string();
        assert!(error.contains("/nowhere/restok.toml"), "{error}");
    }

    #[test]
    fn a_key_of_an_older_name_is_the_new_one_and_told_of() {
        let text = "[train-tokenizer]\naccumulation = 4\n";
        let (file, program) = (read(text).expect("an older key"), cli::command());
        assert!(file.has("train-tokenizer", "gradient_accumulation"));
        let typed = ["--ema-decay=0.9", "--gradient-norm=1"].map(str::to_owned);
        let told = file.older_names(&program, "train-tokenizer", &typed);
        assert_eq!(
            told,
            ["--gradient-norm is --max-grad-norm", "accumulation in [train-tokenizer] is gradient-accumulation"]
        );
        assert!(file.older_names(&program, "tokenize", &typed).is_empty());
        let error = read(&format!("{text}gradient-accumulation = 4\n")).expect_err("both names").to_string();
        assert!(error.contains("line 3") || error.contains("line 2"), "{error}");
    }

    #[test]
    fn every_flag_and_variable_of_an_older_version_is_still_there() {
        let program = cli::command();
        let older = include_str!("../../../tests/fixtures/older/flags.txt");
        for line in older.lines() {
            let [command, flag, variable] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let key = flag.trim_start_matches('-');
            let sections = [command, LIMITS, GENERAL];
            let options: Vec<_> =
                sections.iter().filter_map(|section| options_of(&program, section)).flatten().collect();
            let option = find(&options, key).unwrap_or_else(|| panic!("{line}"));
            // Those of every command have theirs at the program.
            let name = option.get_env().map(|name| name.to_string_lossy().into_owned());
            let own = name.unwrap_or_else(|| super::super::variable(option.get_id().as_str()));
            let older = option.get_all_aliases().unwrap_or_default().into_iter().map(super::super::variable);
            assert!(older.chain([own]).any(|name| name == variable), "{line}");
        }
    }
}
