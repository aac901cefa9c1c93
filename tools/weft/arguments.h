// Options that several subcommands have: declared and read here, once.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common.h"
#include "picture_stream.h"

namespace weft::cli {

void declare_json(CLI::App& app, bool& json);
void declare_threads(CLI::App& app, int& threads);
/// For parse_dtype.
void declare_dtype(CLI::App& app, std::string& dtype);
/// --max-memory, for parse_max_memory.
void declare_max_memory(CLI::App& app, std::string& size);
/// Bytes; 0, no limit, when it is not given. Throws UsageError.
std::int64_t parse_max_memory(std::string_view size);

/// --section and --set: how a checkpoint is read.
struct LoadArguments {
  std::string section;
  std::vector<std::string> set;

  void declare(CLI::App& app);
  /// Throws UsageError for a --set without "=".
  LoadOptions options() const;
};

/// What a subcommand that runs a model on pictures works with.
struct PictureRun {
  std::filesystem::path path;  // of the model's file
  Model model;                 // takes pictures as the stream hands them out: resized and cropped already
  SessionOptions session;
  PictureStream::Options stream;

  std::string name() const { return path.filename().string(); }
};

/// --model and what is needed to run it on pictures. Values set before declare() are the defaults.
struct RunArguments {
  std::string model;
  LoadArguments load;
  int threads = 0;
  std::string dtype = "f32";
  std::string max_memory;
  int batch = 8;
  bool any_size = false;
  bool json = false;

  void declare(CLI::App& app);
  /// Throws UsageError for a --dtype, --max-memory or --set that is none, before anything is read; Error where the
  /// model cannot be loaded.
  PictureRun open() const;
};

/// Those, and the pictures.
struct PictureArguments : RunArguments {
  std::vector<std::string> images;

  void declare(CLI::App& app);
};

}  // namespace weft::cli
