# The front door. `make help` lists what there is; every target fetches what it needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# nasm for libjpeg-turbo's SIMD; cmake and libtorch are named in .cargo/config.toml.
export PATH := $(CURDIR)/.deps/bin:$(PATH)
PYTHON := .venv/bin/python

# cargo, with the release of tch that fits the libtorch in use: that of `make setup`, of LIBTORCH, or version TORCH, which is fetched.
CARGO := tools/cargo.sh
ifdef TORCH
export TORCH
export LIBTORCH := $(CURDIR)/.deps/torch-$(TORCH)/torch
endif

# nextest runs each test in its own process and the slow ones first; without it the same tests run under `cargo test`.
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)
ifeq ($(NEXTEST),yes)
RUN_TESTS := nextest run --locked
else
RUN_TESTS := test --locked
endif

# The development build of the program, with the features that the tests need of its dependencies: demo and tests share one build.
BUILD_PROGRAM := $(CARGO) build --locked --workspace --bins

# --- settings of tokenize-imagenet, generate-fid, decode and evaluate ------------------------------------------------
# What starts tokenize-imagenet, generate-fid, decode and evaluate: this machine, a Ray cluster or a scheduler, with ENGINE_ARGS, the options of
# restok-ray or of `restok submit` (docs/ray.md, docs/many-machines.md).
ENGINE ?= local
ENGINE_ARGS ?=
# Where ENGINE=kubernetes writes the manifest.
MANIFEST ?= restok-job.yaml
engine_local := target/release/restok
engine_ray := .deps/ray/bin/restok-ray --restok $(CURDIR)/target/release/restok $(ENGINE_ARGS)
engine_slurm := target/release/restok submit slurm $(ENGINE_ARGS)
engine_kubernetes := target/release/restok submit kubernetes $(ENGINE_ARGS)
engine_kubernetes_to := >'$(MANIFEST)' && echo "start it: kubectl create -f '$(MANIFEST)'"
RUN_JOB = $(engine_$(ENGINE))
RUN_JOB_TO = $(engine_$(ENGINE)_to)
CHECK_ENGINE = [ -n "$(engine_$(ENGINE))" ] || { echo "ENGINE=$(ENGINE): expected local, ray, slurm or kubernetes"; exit 42; }
# What is done without the settings that are named is small, and done here.
CHECK_LOCAL = [ "$(ENGINE)" = local ] || { echo "ENGINE=$(ENGINE): set $(1), without which this target runs a small example on this machine"; exit 42; }
# --- settings of tokenize-imagenet ---------------------------------------------------------------------------------
TOKENIZER ?= hf://xushu-me/restok_l_128.r256_in1k
DEVICES ?= auto
VIEWS ?= 1
PRECISION ?= fp32
SPLIT ?= train
ARGS ?=
# --- settings of train-tokenizer -----------------------------------------------------------------------------------
PRESET ?= restok-l-128
VALIDATION ?=
TRAIN_ARGS ?=
# Processes that train together on this machine, one a GPU, and the torchrun that starts them.
GPUS ?=
TORCHRUN ?= torchrun
LAUNCH = $(if $(GPUS),$(TORCHRUN) --standalone --nproc-per-node $(GPUS) --no-python )
# --- settings of train-generator -----------------------------------------------------------------------------------
GENERATOR_PRESET ?= gpt-l
CLASSES ?=
# --- settings of generate-fid --------------------------------------------------------------------------------------
GENERATOR ?= hf://xushu-me/llamagen_l_c2i_restok_l_128.r256_in1k
RECIPE ?= paper
GENERATE_ARGS ?=
# --- settings of evaluate -----------------------------------------------------------------------------------------
REFERENCE ?=
INCEPTION ?=
EVALUATION ?= data/evaluation
EVALUATE_ARGS ?=
# --- the crop of VIEWS ---------------------------------------------------------------------------------------------
crop_1 := adm-center-256
crop_2 := adm-center-256-flip
crop_10 := adm-ten-crop-281-256

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^# ---.*---$$/ {next} /^[a-z-]+:.*## / {printf "  make %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Settings of tokenize-imagenet: IMAGENET= TOKENS= TOKENIZER= DEVICES= VIEWS=1|2|10 PRECISION= SPLIT= ARGS='--flags of restok tokenize'"
	@echo "Settings of tokenize-imagenet, generate-fid, decode and evaluate: ENGINE=local|ray|slurm|kubernetes ENGINE_ARGS='--flags of restok-ray or restok submit' MANIFEST= (where ENGINE=kubernetes writes)"
	@echo "Settings of train-generator: SOURCE= OUTPUT= VALIDATION= (outputs of restok tokenize) TOKENIZER= (for sheets) CLASSES= GENERATOR_PRESET=gpt-b|gpt-l|gpt-xl|gpt-xxl|tiny TRAIN_ARGS='--flags of restok train-generator'"
	@echo "Settings of generate-fid: SAMPLES= (an output) GENERATOR= TOKENIZER= RECIPE=paper DEVICES= GENERATE_ARGS='--flags of restok generate'"
	@echo "Settings of decode: TOKENS= (a finished output) SAMPLES= (where images go) TOKENIZER= DEVICES= GENERATE_ARGS='--flags of restok generate'"
	@echo "Settings of evaluate: SAMPLES= (an output, an archive, a folder) REFERENCE= INCEPTION= EVALUATION= (where scores go) DEVICES= EVALUATE_ARGS='--flags of restok evaluate'"
	@echo "Settings of train-tokenizer: SOURCE= OUTPUT= VALIDATION= PRESET=restok-l-128|restok-b-128|restok-s-128|tiny TRAIN_ARGS='--flags of restok train-tokenizer'"

.PHONY: setup setup-tools setup-tables setup-browser setup-servers setup-ray setup-wheel setup-slurm
setup: ## get libtorch, cmake and nasm into the checkout, without root (other targets do this when needed)
	@tools/setup.sh torch
setup-tools:
	@tools/setup.sh tools
setup-tables:
	@tools/setup.sh tables
setup-browser:
	@tools/setup.sh browser
setup-servers:
	@tools/setup.sh servers
setup-ray: ## get Ray and restok-ray into .deps/ray
	@tools/setup.sh ray
setup-wheel:
	@tools/setup.sh wheel
setup-slurm:
	@tools/setup.sh slurm

.PHONY: build build-engine
build: setup ## build the binary target/release/restok
	$(CARGO) build --locked --release --package jobs
build-engine: build $(if $(filter ray,$(ENGINE)),setup-ray)
	@[ "$(ENGINE)" != ray ] || [ ! -e .deps/no-ray ] || { echo "ENGINE=ray: $$(cat .deps/no-ray)"; exit 42; }

.PHONY: demo
demo: setup setup-tables ## tokenize two small samples, reconstruct ten images, generate a thousand with the bundled models, score, and write a report
	@$(BUILD_PROGRAM)
	@tools/demo.sh

SETUP_TESTS := setup setup-tables setup-browser setup-servers setup-ray setup-wheel setup-slurm
define TEST_TABLES
	$(BUILD_PROGRAM)
	RESTOK_BINARY=$(CURDIR)/target/debug/restok $(PYTHON) -m pytest --quiet tests/python
endef
.PHONY: test test-data check-models test-models test-tables source-cases fuzz
test: $(SETUP_TESTS) ## run every test: Rust, then other tools reading our tables, a browser our page, stores that others wrote, a Ray cluster and a Slurm
	$(CARGO) $(RUN_TESTS) --workspace
	$(TEST_TABLES)
test-data: setup-tools ## run the tests of schemas, pipeline and report alone: no libtorch needed
	cargo $(RUN_TESTS) --package schemas --package pipeline --package report
check-models: setup ## compile models and its tests over the libtorch of `make setup`, of LIBTORCH, or version TORCH=
	$(CARGO) check --locked --package models --all-targets
test-models: setup ## run the tests of models alone, over the libtorch of `make setup`, of LIBTORCH, or version TORCH=
	$(CARGO) $(RUN_TESTS) --package models
fuzz: setup ## damage images, shards, Parquet files, archives, plans, settings and model folders at random, each for SECONDS= (600)
	export PROPTEST_RNG_SEED=$$(od -An -N7 -tu8 /dev/urandom | tr -d ' '); echo "PROPTEST_RNG_SEED=$$PROPTEST_RNG_SEED"; \
	RESTOK_FUZZ_SECONDS=$(or $(SECONDS),600) $(CARGO) $(RUN_TESTS) $(if $(filter yes,$(NEXTEST)),--profile fuzz) --workspace hostile
source-cases: setup setup-tables ## tokenize sources as people have them, and print case, expected and seen
	$(BUILD_PROGRAM)
	RESTOK_BINARY=$(CURDIR)/target/debug/restok $(PYTHON) tests/python/source_cases.py
test-tables: $(SETUP_TESTS) ## open the sample's tables with DuckDB, Polars, pandas and pyarrow, a report in Chromium, and work in moto, Azurite, Ray and Slurm
	$(TEST_TABLES)

.PHONY: lint arrows modules deny
lint: setup ## check format, clippy and documentation, warnings denied
	cargo fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items
arrows: ## check which crate may depend on which, and that modules form no cycle
	@tools/check-arrows.sh
modules: ## print the modules of each crate by layers: a module uses only modules of the lines below its own
	@tools/module_cycles.py --layers
deny: ## check licences, advisories and sources of dependencies (needs cargo-deny)
	@cargo deny --version >/dev/null 2>&1 || { echo "cargo-deny is missing: cargo install --locked cargo-deny"; exit 1; }
	cargo deny check

.PHONY: fashion-mnist
fashion-mnist: ## fetch Fashion-MNIST (MIT licence) and write it as WebDataset shards into data/fashion-mnist
	@tools/fashion_mnist.py

.PHONY: train-tokenizer fashion-mnist-tokenizer
train-tokenizer: ## train a tokenizer of PRESET= on the images of SOURCE= into the folder OUTPUT=, on GPUS= GPUs; the same command goes on
	@[ -n "$(SOURCE)" ] && [ -n "$(OUTPUT)" ] || { echo "set both SOURCE=... (images) and OUTPUT=... (a folder on this machine)"; exit 42; }
	@$(MAKE) build
	$(LAUNCH)target/release/restok train-tokenizer --preset '$(PRESET)' --source '$(SOURCE)' --output '$(OUTPUT)' \
		$(if $(VALIDATION),--validation-source '$(VALIDATION)') $(TRAIN_ARGS)

# The number of threads is named because the last bits of sums depend on it: stopped and started again, the run stays the same.
fashion-mnist-tokenizer: fashion-mnist build ## train the tokenizer of samples/fashion-mnist again, on the processor: takes hours
	target/release/restok train-tokenizer --preset tiny \
		--source 'data/fashion-mnist/fashion-mnist-train-{000000..000005}.tar' \
		--validation-source data/fashion-mnist/fashion-mnist-test-000000.tar \
		--output data/fashion-mnist-tokenizer --steps 17000 --learning-rate 1.5e-3 --min-scale 1.0 \
		--device cpu --device-threads 2 --publish-precision fp16 --log-every 25 --validate-every 500 \
		--validation-images 500 --sheet-every 500 --save-every 500 --progress-seconds 60

.PHONY: train-generator fashion-mnist-tokens fashion-mnist-generator
train-generator: ## train a generator of GENERATOR_PRESET= on the token tables of SOURCE= into the folder OUTPUT=, on GPUS= GPUs; the same command goes on
	@[ -n "$(SOURCE)" ] && [ -n "$(OUTPUT)" ] || { echo "set both SOURCE=... (outputs of restok tokenize) and OUTPUT=... (a folder on this machine)"; exit 42; }
	@$(MAKE) build
	$(LAUNCH)target/release/restok train-generator --preset '$(GENERATOR_PRESET)' --source '$(SOURCE)' --output '$(OUTPUT)' \
		$(if $(VALIDATION),--validation-source '$(VALIDATION)') $(if $(CLASSES),--classes '$(CLASSES)') \
		$(if $(filter-out file,$(origin TOKENIZER)),--tokenizer '$(TOKENIZER)') $(TRAIN_ARGS)

# The same command again finds both outputs finished.
fashion-mnist-tokens: fashion-mnist build ## tokenize Fashion-MNIST with the tokenizer that ships, on the processor: takes a while
	target/release/restok tokenize --source 'data/fashion-mnist/fashion-mnist-train-{000000..000005}.tar' \
		--output data/fashion-mnist-tokens/train --tokenizer samples/fashion-mnist/tokenizer --crop adm-center-32 \
		--batch-size 128 --devices cpu --device-threads 1
	target/release/restok tokenize --source data/fashion-mnist/fashion-mnist-test-000000.tar --split test \
		--output data/fashion-mnist-tokens/test --tokenizer samples/fashion-mnist/tokenizer --crop adm-center-32 \
		--batch-size 128 --devices cpu --device-threads 1

# All numbers of its training. The set's own numbers of the classes: data/fashion-mnist names none.
FASHION_GENERATOR := --preset tiny --classes 10 \
	--class-names t-shirt,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle-boot \
	--steps 5500 --batch-size 64 --learning-rate 1.5e-3 --warmup-steps 200 --dropout 0 --ema-decay 0.999 --seed 10086 \
	--log-every 25 --validate-every 500 --validation-images 2000 --sheet-every 1000 --save-every 500 --sheet-guidance 2

# The number of threads is named because the last bits of sums depend on it.
fashion-mnist-generator: fashion-mnist-tokens ## train the generator of samples/fashion-mnist again, on the processor: takes an hour
	target/release/restok train-generator $(FASHION_GENERATOR) --source data/fashion-mnist-tokens/train \
		--validation-source data/fashion-mnist-tokens/test --tokenizer samples/fashion-mnist/tokenizer \
		--output data/fashion-mnist-generator --device cpu --device-threads 1 --publish-precision fp16 --progress-seconds 60

.PHONY: tokenize-imagenet
tokenize-imagenet: ## tokenize IMAGENET= into TOKENS= with the published checkpoint; without them, the sample
	@$(CHECK_ENGINE)
ifeq ($(IMAGENET)$(TOKENS),)
	@$(call CHECK_LOCAL,both IMAGENET=s3://... and TOKENS=s3://...)
	@echo "IMAGENET= and TOKENS= are not set: this is the demo on the built-in sample"
	@$(MAKE) demo
else
	@[ -n "$(IMAGENET)" ] && [ -n "$(TOKENS)" ] || { echo "set both IMAGENET=s3://... (images) and TOKENS=s3://... (output)"; exit 42; }
	@[ -n "$(crop_$(VIEWS))" ] || { echo "VIEWS=$(VIEWS): expected 1 (centre), 2 (centre and mirror image) or 10 (ten-crop)"; exit 42; }
	@$(MAKE) build-engine
	$(RUN_JOB) tokenize --source '$(IMAGENET)' --output '$(TOKENS)' --tokenizer '$(TOKENIZER)' \
		--crop $(crop_$(VIEWS)) --devices '$(DEVICES)' --precision $(PRECISION) --split '$(SPLIT)' $(ARGS) $(RUN_JOB_TO)
endif

.PHONY: generate-fid
generate-fid: ## make the evaluation set of RECIPE= in SAMPLES= with GENERATOR= and TOKENIZER=; without SAMPLES=, a small set with the models that ship
	@$(CHECK_ENGINE)
ifeq ($(SAMPLES),)
	@$(call CHECK_LOCAL,SAMPLES=s3://...)
	@echo "SAMPLES= is not set: this is a small set of clothes, with the generator that ships"
	@$(MAKE) build
	target/release/restok generate --generator samples/fashion-mnist/generator --tokenizer samples/fashion-mnist/tokenizer \
		--output data/fashion-mnist-samples --count 10000 --guidance-scale 2 --devices '$(DEVICES)' $(GENERATE_ARGS)
else
	@$(MAKE) build-engine
	$(RUN_JOB) generate --generator '$(GENERATOR)' --tokenizer '$(TOKENIZER)' --output '$(SAMPLES)' \
		$(if $(RECIPE),--recipe '$(RECIPE)') --devices '$(DEVICES)' $(GENERATE_ARGS) $(RUN_JOB_TO)
endif

.PHONY: decode
decode: ## decode the first view of every image of the tokens in TOKENS= into the images of SAMPLES= with TOKENIZER=
	@$(CHECK_ENGINE)
	@[ -n "$(TOKENS)" ] && [ -n "$(SAMPLES)" ] || { echo "set both TOKENS=s3://... (a finished output) and SAMPLES=s3://... (images)"; exit 42; }
	@$(MAKE) build-engine
	$(RUN_JOB) generate --decode-only --tokens '$(TOKENS)' --tokenizer '$(TOKENIZER)' --output '$(SAMPLES)' --devices '$(DEVICES)' \
		$(GENERATE_ARGS) $(RUN_JOB_TO)

.PHONY: evaluate
evaluate: ## score SAMPLES= against REFERENCE= with the network INCEPTION=; without SAMPLES=, the tokenizer that ships, by how many tokens are kept
	@$(CHECK_ENGINE)
ifeq ($(SAMPLES),)
	@$(call CHECK_LOCAL,SAMPLES=s3://...)
	@echo "SAMPLES= is not set: this is how the bundled tokenizer reconstructs ten images from the first 1, 2, 4 … tokens"
	@$(MAKE) build
	target/release/restok evaluate --protocol rfid --source samples/fashion-mnist/images --tokenizer samples/fashion-mnist/tokenizer \
		--keep 1,2,4,8,16,32 --allow count,resize --output '$(EVALUATION)' --devices '$(DEVICES)' \
		$(if $(INCEPTION),--inception '$(INCEPTION)') $(EVALUATE_ARGS)
else
	@[ -n "$(INCEPTION)" ] || { echo "set INCEPTION=... (the Inception network as safetensors: docs/evaluating.md says where it is from)"; exit 42; }
	@$(MAKE) build-engine
	$(RUN_JOB) evaluate --source '$(SAMPLES)' --inception '$(INCEPTION)' --output '$(EVALUATION)' --devices '$(DEVICES)' \
		$(if $(REFERENCE),--reference '$(REFERENCE)') $(EVALUATE_ARGS) $(RUN_JOB_TO)
endif

.PHONY: bench
bench: build setup-tables ## compare with the published implementation (RESTOK_PUBLISHED=its checkout), torch-fidelity, Pillow and .npy, in one run
	@tools/bench/run.sh $(BENCH_ARGS)

# Without a GPU, or with CHECK_ARGS='--device cpu', it takes tiny sizes. The second target is for a GPU machine without cargo.
.PHONY: check-gpu pack-check-gpu
check-gpu: setup setup-tables ## hold this machine's device to the published figures and to its own limits: one table, ten minutes at most
	@programs=$$(tools/check-gpu/build.sh release); $(PYTHON) tools/check-gpu/check_gpu.py --programs "$$programs" $(CHECK_ARGS)
pack-check-gpu: setup ## pack what check-gpu runs into .gpu, over the libtorch of `make setup`, of LIBTORCH, or version TORCH=
	@tools/check-gpu/pack.sh $(PACK_ARGS)

# Both hold the program of `make build` without its symbols, with a run path from its own folder: packaging/program.sh.
.PHONY: wheel dist
wheel: setup setup-wheel ## build a wheel with the program and the Python package into dist/, over torch 2.13
	@packaging/wheel.sh release dist
dist: setup setup-wheel ## pack the program with a script that fetches libtorch into dist/, as an archive
	@packaging/archive.sh release dist

.PHONY: docs clean
docs: setup ## build the documentation of the crates
	$(CARGO) doc --locked --workspace --no-deps
clean: ## remove what was built and fetched, but data/
	rm -rf target .venv .deps dist demo-output check-gpu-output .gpu
