# The ways to build, try and check weft. `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
JOBS ?= $(shell nproc)

# Debian 12 packages; `make` installs those that are missing.
BUILD_PACKAGES := g++ cmake ninja-build ccache pkg-config libdnnl-dev libhwy-dev libtbb-dev libvips-dev \
                  libminizip-dev zlib1g-dev libglib2.0-dev nlohmann-json3-dev libcli11-dev libfmt-dev libonnx-dev libprotobuf-dev
TEST_PACKAGES := $(BUILD_PACKAGES) libgtest-dev libbenchmark-dev
TORCH_PACKAGES := libtorch-dev libopenblas-dev libgloo-dev
LINT_PACKAGES := $(TEST_PACKAGES) clang-format clang-tidy libomp-dev
FUZZ_PACKAGES := $(BUILD_PACKAGES) clang libclang-rt-dev libomp-dev
FUZZ_TARGETS := fuzz_pth fuzz_safetensors fuzz_npy fuzz_json fuzz_tokenizer
FUZZ_SECONDS ?= 60

need = @scripts/need
peers = @scripts/peers
sources = git ls-files '*.h' '*.cc' '*.cu'

.PHONY: help build training demo test gpu-test cuda bench instructions format lint asan tsan fuzz clean

help: ## list what can be made
	@echo "make TARGET, where TARGET is one of"
	@awk -F ' ?:.*## ' '/^[a-z-]+:.* ## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build the command: build/release/bin/weft
	$(need) $(BUILD_PACKAGES)
	cmake --preset release
	cmake --build --preset release --parallel $(JOBS)

training: ## the same with libtorch, for `weft train`
	$(need) $(BUILD_PACKAGES) $(TORCH_PACKAGES)
	cmake --preset release
	cmake --build --preset release --parallel $(JOBS)

demo: build ## classify pictures with the model that comes along
	@demo/run.sh build/release/bin/weft

test: ## build with assertions and run the whole suite
	$(need) $(TEST_PACKAGES) $(TORCH_PACKAGES)
	$(peers)
	cmake --preset dev
	cmake --build --preset dev --parallel $(JOBS)
	ctest --preset dev --parallel $(JOBS)

gpu-test: ## build for CUDA, test and measure on this machine's GPU
	$(need) $(TEST_PACKAGES)
	@scripts/gpu_test $(JOBS)

cuda: ## compile the CUDA kernels for all GPUs that they are made for
	$(need) $(TEST_PACKAGES)
	cmake --preset cuda
	cmake --build --preset cuda --parallel $(JOBS)

bench: ## measure operators and whole models
	$(need) $(TEST_PACKAGES)
	$(peers)
	cmake --preset bench
	cmake --build --preset bench --parallel $(JOBS)
	build/bench/bin/weft_bench
	vs=(); [[ ! -d tools/peers/node_modules/onnxruntime-node ]] || vs=(--vs onnxruntime); \
	build/bench/bin/weft bench vrwkv_tiny --dtype f32,bf16,int8 "$${vs[@]}"

instructions: ## compare the instructions of small runs with those on record
	$(need) $(TEST_PACKAGES)
	@scripts/need valgrind || true
	JOBS=$(JOBS) scripts/instructions

format: ## bring all sources into the one format
	$(need) clang-format
	$(sources) | xargs clang-format -i

lint: ## check format, layers and clang-tidy's findings
	$(need) $(LINT_PACKAGES)
	$(sources) | xargs clang-format --dry-run --Werror
	cmake --preset lint
	$(CXX) -std=c++20 -DWEFT_SOURCE_DIR='"$(CURDIR)"' tests/layers_test.cc -o build/lint/layers -lgtest -lgtest_main
	build/lint/layers --gtest_brief=1
	scripts/tidy build/lint $(JOBS)

asan: ## run the suite under address and undefined-behaviour sanitizers
	$(need) $(TEST_PACKAGES)
	cmake --preset asan
	cmake --build --preset asan --parallel $(JOBS)
	ctest --preset asan --parallel $(JOBS)

tsan: ## run what uses threads under the thread sanitizer
	$(need) $(TEST_PACKAGES)
	cmake --preset tsan
	cmake --build --preset tsan --parallel $(JOBS)
	ctest --preset tsan --parallel $(JOBS)

fuzz: ## feed the readers damaged files, FUZZ_SECONDS (60) each, two at a time
	$(need) $(FUZZ_PACKAGES)
	cmake --preset fuzz
	cmake --build --preset fuzz --parallel $(JOBS) --target $(FUZZ_TARGETS)
	printf '%s\n' $(FUZZ_TARGETS) | xargs -P 2 -I{} scripts/fuzz {} $(FUZZ_SECONDS)

clean: ## remove everything that was built
	rm -rf build tools/peers/node_modules
