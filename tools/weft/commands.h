// The subcommands, one file each.
#pragma once

#include "common.h"

namespace weft::cli {

void add_classify(CLI::App& app, Action& action);
void add_features(CLI::App& app, Action& action);
void add_info(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_convert(CLI::App& app, Action& action);
void add_export(CLI::App& app, Action& action);
void add_models(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_verify(CLI::App& app, Action& action);
void add_compare(CLI::App& app, Action& action);
void add_connect(CLI::App& app, Action& action);
void add_train(CLI::App& app, Action& action);
void add_generate(CLI::App& app, Action& action);

/// In the order of `weft --help`. A new subcommand is a line here and one above.
inline constexpr std::array kCommands = {add_classify, add_features, add_info,  add_inspect, add_convert,
                                         add_export,   add_models,   add_eval,  add_bench,   add_verify,
                                         add_compare,  add_connect,  add_train, add_generate};

}  // namespace weft::cli
