#include "tests/cli/command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <random>
#include <sstream>

namespace weft::testing {

RunningCommand::RunningCommand(std::vector<std::string> arguments, const RunOptions& options)
    : output_(options.output.empty() ? folder_ / "out" : options.output), own_output_(options.output.empty()) {
  const std::string in = folder_ / "in", err = folder_ / "err";
  write_text(in, options.input);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, in.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output_.c_str(), O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), O_WRONLY | O_CREAT, 0600);

  arguments.insert(arguments.begin(), WEFT_COMMAND);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    const std::string_view name = text.substr(0, text.find('='));
    const auto is_it = [&](const auto& pair) { return pair.first == name; };
    if (!name.starts_with("WEFT_") && std::ranges::none_of(options.environment, is_it)) variables.emplace_back(text);
  }
  for (const auto& [name, value] : options.environment) variables.push_back(fmt::format("{}={}", name, value));
  std::vector<char*> environment;
  for (std::string& variable : variables) environment.push_back(variable.data());
  environment.push_back(nullptr);

  const int error = posix_spawn(&pid_, WEFT_COMMAND, &actions, nullptr, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error == 0) return;
  ADD_FAILURE() << "cannot run " << WEFT_COMMAND;
  pid_ = 0;
}

RunningCommand::~RunningCommand() {
  if (pid_ == 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void RunningCommand::signal(int number) const {
  if (pid_ != 0) kill(pid_, number);
}

std::string RunningCommand::err() const { return read_text(folder_ / "err"); }

Outcome RunningCommand::wait() {
  Outcome outcome;
  if (pid_ == 0) return outcome;
  int status = 0;
  waitpid(std::exchange(pid_, 0), &status, 0);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (own_output_) outcome.out = read_text(output_);
  outcome.err = err();
  return outcome;
}

Outcome weft_command(std::vector<std::string> arguments, const RunOptions& options) {
  return RunningCommand(std::move(arguments), options).wait();
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::vector<Json> json_lines(const std::string& text) {
  std::vector<Json> values;
  for (const std::string& line : lines_of(text)) {
    values.push_back(Json::parse(line, nullptr, /*allow_exceptions=*/false));
    EXPECT_FALSE(values.back().is_discarded()) << "no JSON: " << line;
  }
  return values;
}

Json only_json(const std::string& text) {
  const std::vector<Json> values = json_lines(text);
  EXPECT_EQ(values.size(), 1U) << text;
  return values.empty() ? Json() : values.front();
}

void expect_error(const Outcome& outcome, int code, std::string_view part) {
  EXPECT_EQ(outcome.code, code) << outcome.err;
  EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
  EXPECT_TRUE(outcome.err.starts_with("weft: ") && outcome.err.ends_with('\n')) << outcome.err;
  EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
}

std::vector<std::string> dtype_names(const std::vector<DType>& dtypes) {
  std::vector<std::string> names;
  for (const DType dtype : dtypes) names.emplace_back(dtype == DType::kI8 ? "int8" : name_of(dtype));
  return names;
}

Image noise(std::int64_t height, std::int64_t width, unsigned seed) {
  Image image{.height = height, .width = width, .channels = 3, .pixels = {}};
  image.pixels.resize(static_cast<std::size_t>(3 * height * width));
  std::mt19937 random(seed);
  for (std::uint8_t& pixel : image.pixels) pixel = static_cast<std::uint8_t>(random() >> 24);
  return image;
}

std::string write_picture(const std::string& path, const Image& image) {
  // TIFF 6.0, baseline RGB: header, nine fields, then the bits per sample and one strip that the fields point to.
  constexpr std::uint16_t kShort = 3, kLong = 4;
  constexpr std::uint32_t kBitsAt = 8 + 2 + 9 * 12 + 4, kPixelsAt = kBitsAt + 6;
  std::string text = "II";
  const auto put = [&](std::uint32_t value, int bytes) {  // little-endian
    for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
  };
  const auto field = [&](std::uint32_t tag, std::uint16_t type, std::uint32_t count, std::uint32_t value) {
    put(tag, 2);
    put(type, 2);
    put(count, 4);
    put(value, 4);
  };
  put(42, 2);
  put(8, 4);
  put(9, 2);
  field(256, kLong, 1, static_cast<std::uint32_t>(image.width));
  field(257, kLong, 1, static_cast<std::uint32_t>(image.height));
  field(258, kShort, 3, kBitsAt);                                  // bits per sample
  field(259, kShort, 1, 1);                                        // not compressed
  field(262, kShort, 1, 2);                                        // RGB
  field(273, kLong, 1, kPixelsAt);                                 // where the strip is
  field(277, kShort, 1, 3);                                        // samples per pixel
  field(278, kLong, 1, static_cast<std::uint32_t>(image.height));  // rows in the strip
  field(279, kLong, 1, static_cast<std::uint32_t>(image.pixels.size()));
  put(0, 4);
  for (int i = 0; i < 3; ++i) put(8, 2);
  text.append(image.pixels.begin(), image.pixels.end());
  write_text(path, text);
  return text;
}

Model small_model(unsigned seed) {
  const LoadOptions options{
      .section = "",
      .config = {
          {"img_size", "[32,32]"}, {"patch_size", "8"}, {"embed_dims", "24"}, {"depth", "2"}, {"num_classes", "7"}}};
  const std::vector<std::string> labels = {"class_a", "class_b", "class_c", "class_d", "class_e", "class_f", "class_g"};
  return Model::create("vrwkv_tiny", seed, options).with_labels(labels);
}

std::string write_small_model(const std::string& path, unsigned seed) {
  small_model(seed).save(path);
  return path;
}

}  // namespace weft::testing
