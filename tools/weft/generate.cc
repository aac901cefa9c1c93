// weft generate: text that goes on.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <iterator>
#include <limits>
#include <optional>
#include <stdexcept>

#include "api/model_data.h"
#include "arguments.h"
#include "commands.h"
#include "interrupt.h"
#include "io/json.h"
#include "io/mapped_file.h"
#include "weft/language.h"
#include "weft/text.h"

namespace weft::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kByteTokens = "bytes";

struct Options {
  std::string model;
  std::string prompt;
  std::string prompt_file;
  std::string tokenizer;
  int tokens = 128;
  SamplingOptions sampling;
  std::vector<std::string> stops;
  bool ignore_end = false;
  std::string state_in, state_out;
  LoadArguments load;
  int threads = 0;
  std::string dtype = "f32";
  std::string max_memory;
  bool json = false;
};

// CLI11 takes what is beyond 64 bits for the largest number.
std::string whole_number(const std::string& text) {
  std::uint64_t value = 0;
  const char* const stop = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), stop, value);
  if (error == std::errc() && end == stop) return "";
  return fmt::format("expected a whole number of at most 64 bits, got {}", one_line(text));
}

void declare(CLI::App& app, Options& o) {
  app.add_option("prompt", o.prompt, "Text to go on from")->type_name("TEXT");
  app.add_option("--model", o.model, "Checkpoint of a language model, or a preset (random weights)")
      ->type_name("FILE|PRESET")
      ->required();
  app.add_option("--prompt-file", o.prompt_file, "Read the prompt from a file, or from - (stdin)")->type_name("FILE");
  app.add_option(
         "--tokenizer", o.tokenizer,
         "The model's vocabulary: a tokenizer.json, a vocabulary of RWKV World, or bytes (a token for each; what "
         "models of 256 tokens have)")
      ->type_name("FILE|bytes");
  app.add_option("--tokens", o.tokens, "Tokens to generate at most (default 128)")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 30));
  app.add_option("--temperature", o.sampling.temperature, "Of the draw; 0 takes the likeliest token (default 1)");
  app.add_option("--top-p", o.sampling.top_p,
                 "Draw among the likeliest tokens of this probability together (default 1)");
  app.add_option("--top-k", o.sampling.top_k, "Draw among so many of the likeliest tokens; 0: all (default 0)");
  app.add_option("--repetition-penalty", o.sampling.repetition_penalty,
                 "Divides the logits of tokens seen (default 1: none)");
  app.add_option("--presence-penalty", o.sampling.presence_penalty, "Taken from the logits of tokens seen (default 0)");
  app.add_option("--frequency-penalty", o.sampling.frequency_penalty,
                 "Taken from the logits of tokens for each time seen (default 0)");
  app.add_option("--penalty-decay", o.sampling.penalty_decay,
                 "What tokens seen count for after each further one (default 1: forget nothing)");
  app.add_option("--seed", o.sampling.seed, "Of the draws (default 0)")->type_name("N")->check(whole_number);
  app.add_option("--stop", o.stops, "End before this text; may be given several times")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  app.add_flag("--ignore-end", o.ignore_end, "Go on behind the token that ends texts");
  app.add_option("--state-in", o.state_in, "Go on from a saved state")->type_name("FILE");
  app.add_option("--state-out", o.state_out, "Save the state at the end")->type_name("FILE");
  o.load.declare(app);
  declare_threads(app, o.threads);
  declare_dtype(app, o.dtype);
  declare_max_memory(app, o.max_memory);
  declare_json(app, o.json);
  app.footer(
      "The prompt is read as a sequence, in memory that does not depend on its length; then the text goes to stdout\n"
      "token by token, the speeds of both to stderr. A state takes as many bytes after a million tokens as after one;\n"
      "--state-in with the same options goes on to the same text as without a stop. Ctrl-C ends the text, or the\n"
      "reading of the prompt; the state is saved nevertheless.\n"
      "JSON: {\"text\", \"tokens\": [N], \"prompt_tokens\", \"finish\": \"length\"|\"stop\"|\"end\"|\"interrupted\",\n"
      "\"prefill_seconds\", \"generate_seconds\", \"prefill_tokens_per_second\", \"generate_tokens_per_second\",\n"
      "\"bytes_per_token\", \"state_tokens\", \"dtype\", \"threads\"}.\n\n"
      "Examples:\n"
      "  weft generate --model RWKV-4-Pile-169M.pth --tokenizer 20B_tokenizer.json \"Once upon a time\"\n"
      "  weft generate --model m.pth --tokenizer v.txt --dtype bf16 --temperature 0.8 --top-p 0.9 --prompt-file a.txt\n"
      "  weft generate --model m.pth --tokenizer v.txt --state-out a.state --tokens 0 --prompt-file book.txt\n"
      "  weft generate --model m.pth --tokenizer v.txt --state-in a.state \"\\nQuestion:\"");
}

Tokenizer tokenizer_of(const Options& o, const Model& model) {
  constexpr std::int32_t kBytes = 256;
  if (o.tokenizer.empty() && model.vocab_size() != kBytes) {
    fail_usage("--tokenizer is required: a file with the vocabulary of the model's {} tokens",
               grouped(model.vocab_size()));
  }
  const bool bytes = o.tokenizer.empty() || o.tokenizer == kByteTokens;
  Tokenizer tokenizer = bytes ? Tokenizer::bytes() : Tokenizer::load(o.tokenizer);
  // Vocabularies are padded, not doubled.
  const bool fits = tokenizer.size() <= model.vocab_size() && model.vocab_size() / 2 < tokenizer.size();
  require<ConfigError>(fits, one_line(o.tokenizer),
                       "this tokenizer has {} tokens, the model knows {}; give the one that it was trained with",
                       grouped(tokenizer.size()), grouped(model.vocab_size()));
  return tokenizer;
}

std::string prompt_of(const Options& o) {
  if (o.prompt_file.empty()) return o.prompt;
  if (!o.prompt.empty()) fail_usage("a prompt and --prompt-file: one of them only");
  if (o.prompt_file == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  const FileBytes file = map_file(o.prompt_file);
  return {reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size()};
}

// What the file of a state holds beside it: the token that was drawn and not read, and what the sampler knows.
constexpr const char* kPending = "pending";
constexpr const char* kSampler = "sampler";

Json sampler_to_json(const SamplerState& state) {
  Json counts = Json::array();
  for (const TokenCount& c : state.counts) counts.push_back({c.token, c.count});
  return {{"position", state.position}, {"counts", std::move(counts)}};
}

// Throws ConfigError for what is no token.
std::int32_t token_from_json(const Json& json) {
  const bool sound = json.is_number_unsigned() && json.get<std::uint64_t>() <= std::numeric_limits<std::int32_t>::max();
  require<ConfigError>(sound, "token", "expected a whole number, got {}", printable(json.dump(), 40));
  return json.get<std::int32_t>();
}

// Throws ConfigError and Json::exception for what is none.
SamplerState sampler_from_json(const Json& json) {
  const Json& position = json.at("position");
  require<ConfigError>(position.is_number_unsigned(), "position", "expected a whole number");
  SamplerState state{.position = position.get<std::uint64_t>(), .counts = {}};
  for (const Json& c : json.at("counts")) {
    state.counts.push_back({.token = token_from_json(c.at(0)), .count = c.at(1).get<double>()});
  }
  return state;
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double rate(std::size_t count, double seconds) { return seconds > 0 ? static_cast<double>(count) / seconds : 0; }

class Generation {
 public:
  Generation(const Options& o, LanguageSession& session, Tokenizer tokenizer)
      : options_(o),
        session_(session),
        tokenizer_(std::move(tokenizer)),
        sampler_(o.sampling),
        stops_(o.stops),
        state_(session.start()) {}

  // Where a saved state stood.
  void resume() {
    const SavedState saved = session_.load(options_.state_in);
    try {
      const auto note = [&](const char* key) {
        return parse_json(saved.notes.at(key), fmt::format("{}: {}", options_.state_in, key));
      };
      const Json pending = note(kPending);
      require<ConfigError>(pending.is_array() && pending.size() == 1, kPending, "expected one token");
      pending_ = {token_from_json(pending[0])};
      sampler_.restore(sampler_from_json(note(kSampler)));
    } catch (const Json::exception&) {
      fail_damaged();
    } catch (const ConfigError&) {
      fail_damaged();
    } catch (const std::out_of_range&) {
      fail<IoError>(one_line(options_.state_in), "the state was not saved by weft generate");
    }
    state_ = saved.state;
  }

  void read(const std::string& prompt) {
    std::vector<std::int32_t> tokens = tokenizer_.encode(prompt);
    const auto lacking = std::ranges::find_if(tokens, [&](std::int32_t t) { return t >= tokenizer_.size(); });
    require<ConfigError>(lacking == tokens.end(), "prompt",
                         "the vocabulary has no token for the byte 0x{:02X}; is the text UTF-8?",
                         lacking == tokens.end() ? 0 : *lacking - tokenizer_.size());
    prompt_tokens_ = tokens.size();
    for (const std::int32_t token : tokens) sampler_.accept(token);
    pending_.insert(pending_.end(), tokens.begin(), tokens.end());
    if (pending_.empty() && state_.tokens == 0) {
      if (!tokenizer_.end_of_text()) fail_usage("there is nothing to go on from; give a prompt or --state-in");
      pending_.push_back(*tokenizer_.end_of_text());
    }
    // The last one is read when its logits are wanted.
    const auto start = Clock::now();
    std::size_t done = 0;
    while (done + 1 < pending_.size() && caught_signal() == 0) {
      const std::size_t count = std::min(kSlice, pending_.size() - 1 - done);
      session_.read(std::span(pending_).subspan(done, count), state_);
      done += count;
    }
    prefill_tokens_ = done;
    prefill_seconds_ = seconds_since(start);
    pending_ = {pending_[done]};  // where a signal came, the rest of the prompt is left out
  }

  void run(const std::function<void(std::string_view)>& show) {
    const auto end = options_.ignore_end ? std::nullopt : tokenizer_.end_of_text();
    const auto start = Clock::now();
    while (finish_.empty()) {
      if (generated_.size() >= static_cast<std::size_t>(options_.tokens)) {
        finish_ = "length";
      } else if (caught_signal() != 0) {
        finish_ = "interrupted";
      } else {
        step(end, show);
      }
    }
    generate_seconds_ = seconds_since(start);
    show(stops_.finish());
  }

  void save() const {
    session_.save(options_.state_out,
                  {.state = state_,
                   .notes = {{kPending, Json(pending_).dump()}, {kSampler, sampler_to_json(sampler_.state()).dump()}}});
  }

  Json report(const std::string& text) const {
    return {{"text", text},
            {"tokens", generated_},
            {"prompt_tokens", prompt_tokens_},
            {"finish", finish_},
            {"prefill_seconds", prefill_seconds_},
            {"generate_seconds", generate_seconds_},
            {"prefill_tokens_per_second", rate(prefill_tokens_, prefill_seconds_)},
            {"generate_tokens_per_second", rate(generated_.size(), generate_seconds_)},
            {"bytes_per_token", session_.bytes_per_token()},
            {"state_tokens", state_.tokens},
            {"dtype", dtype_text(session_.dtype())},
            {"threads", session_.threads()}};
  }

  void print_speeds() const {
    std::string text = "weft:";
    if (prefill_tokens_ > 0) {
      text += fmt::format(" read {} tokens in {:.2f} s ({:.1f} tokens/s),",
                          grouped(static_cast<std::int64_t>(prefill_tokens_)), prefill_seconds_,
                          rate(prefill_tokens_, prefill_seconds_));
    }
    fmt::print(stderr, "{} generated {} tokens in {:.2f} s ({:.1f} tokens/s){}\n", text,
               grouped(std::ssize(generated_)), generate_seconds_, rate(generated_.size(), generate_seconds_),
               dtype_note(session_.dtype()));
  }

 private:
  [[noreturn]] void fail_damaged() const {
    fail<IoError>(one_line(options_.state_in), "what weft generate keeps beside a state is damaged");
  }

  static constexpr std::size_t kSlice = 4096;  // tokens of the prompt between looks at signals

  // Reads what is pending, draws the next token and shows its text.
  void step(std::optional<std::int32_t> end, const std::function<void(std::string_view)>& show) {
    const Tensor logits = session_.read(pending_, state_);
    const auto known = static_cast<std::size_t>(std::min<std::int64_t>(logits.elements(), tokenizer_.size()));
    const std::int32_t token = sampler_.next(logits.data<float>().first(known));
    sampler_.accept(token);
    pending_ = {token};
    if (token == end) {
      finish_ = "end";
      return;
    }
    generated_.push_back(token);
    show(stops_.push(tokenizer_.bytes_of(token)));
    if (stops_.stopped()) finish_ = "stop";
  }

  const Options& options_;
  LanguageSession& session_;
  Tokenizer tokenizer_;
  Sampler sampler_;
  StopMatcher stops_;
  LanguageState state_;
  std::vector<std::int32_t> pending_;  // not read yet: at most the last token, once the prompt is read
  std::vector<std::int32_t> generated_;
  std::size_t prompt_tokens_ = 0, prefill_tokens_ = 0;
  double prefill_seconds_ = 0, generate_seconds_ = 0;
  std::string finish_;
};

// What the library would refuse as well, as wrong usage.
void check_usage(const Options& o) {
  try {
    validate(o.sampling);
    (void)StopMatcher(o.stops);
  } catch (const ConfigError& error) {
    fail_usage("{}", error.what());
  }
}

int run(const Options& o) {
  const SessionOptions how{
      .threads = o.threads, .dtype = parse_dtype(o.dtype, "--dtype"), .max_memory = parse_max_memory(o.max_memory)};
  check_usage(o);
  const std::string prompt = prompt_of(o);
  const Model model = load_or_create(o.model, o.load.options());
  (void)require_language(*model.data().architecture);
  Tokenizer tokenizer = tokenizer_of(o, model);
  LanguageSession session(model, how);
  Generation generation(o, session, std::move(tokenizer));
  if (!o.state_in.empty()) generation.resume();
  leave_on_signals();
  generation.read(prompt);
  std::string text;
  Utf8Stream utf8;
  generation.run([&](std::string_view bytes) {
    if (o.json) {
      text += utf8.push(bytes);
    } else {
      std::fwrite(bytes.data(), 1, bytes.size(), stdout);
      std::fflush(stdout);
    }
  });
  if (o.json) {
    print_json(generation.report(text + utf8.finish()));
  } else {
    fmt::print("\n");
    std::fflush(stdout);
    generation.print_speeds();
  }
  if (!o.state_out.empty()) generation.save();
  return kOk;
}

}  // namespace

void add_generate(CLI::App& app, Action& action) {
  add_command(app, action, "generate", "Go on with a text, by a language model", declare, run);
}

}  // namespace weft::cli
