// weft info, models, inspect and convert.
#include <filesystem>
#include <map>

#include "io/safetensors.h"
#include "tests/cli/command.h"

namespace weft::testing {
namespace {

struct Published {
  const char* preset;
  std::int64_t parameters;
  double gmacs;  // as the paper's code counts them, to the digits given
};

// Vision-RWKV, table 2 and the released configurations. DeiT: 12 layers of 12·C²·T + 2·T²·C, the patches and the head.
const std::vector<Published> kPublished = {{"vrwkv_tiny", 6155176, 1.169},
                                           {"vrwkv_small", 23820136, 4.593},
                                           {"vrwkv_base", 93645544, 18.203},
                                           {"vrwkv_large", 334881768, 189.3},
                                           {"deit_tiny_patch16_224", 5717416, 1.254}};

TEST(InfoCommand, CountsThePublishedModels) {
  for (const Published& p : kPublished) {
    Json json = only_json(weft_command({"info", "--json", p.preset}).out);
    EXPECT_EQ(json["parameters"], p.parameters) << p.preset;
    // Half a unit in the last digit given.
    EXPECT_NEAR(json["macs"].get<double>() / 1e9, p.gmacs, p.gmacs > 100 ? 0.05 : 0.0005) << p.preset;
  }
}

TEST(InfoCommand, ThePartsMakeTheWhole) {
  Json json = only_json(weft_command({"info", "--json", "vrwkv_tiny", "--size", "96x160"}).out);
  EXPECT_EQ(json["size"], Json({96, 160}));
  std::int64_t parameters = 0, macs = 0;
  for (const Json& layer : json["layers"]) {
    parameters += layer["parameters"].get<std::int64_t>();
    macs += layer["macs"].get<std::int64_t>();
  }
  EXPECT_EQ(json["parameters"], parameters);
  EXPECT_EQ(json["macs"], macs);
}

TEST(InfoCommand, PrintsForPeople) {
  const Outcome outcome = weft_command({"info", "vrwkv_tiny"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("6,155,176"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("1.169 G"), std::string::npos);
  EXPECT_NE(outcome.out.find("backbone.patch_embed"), std::string::npos);
  EXPECT_NE(outcome.out.find("att"), std::string::npos);
  EXPECT_NE(outcome.out.find("embed_dims = 192"), std::string::npos);
}

TEST(InfoCommand, CountsWeightAndBiasAsOnePart) {
  Json json = only_json(weft_command({"info", "--json", "deit_tiny_patch16_224"}).out);
  std::map<std::string, std::int64_t> parameters;
  for (const Json& layer : json["layers"]) parameters[layer["place"].get<std::string>()] = layer["parameters"];
  EXPECT_EQ(parameters["norm"], 2 * 192);
  EXPECT_EQ(parameters["head"], 193 * 1000);
  EXPECT_EQ(parameters["cls_token"], 192);
  EXPECT_EQ(parameters["blocks.11"], 444'864);
}

TEST(InfoCommand, TakesOptionsAndFiles) {
  const ScratchFolder folder;
  Json preset = only_json(weft_command({"info", "--json", "vrwkv_tiny", "--set", "depth=3"}).out);
  EXPECT_EQ(preset["depth"], 3);
  expect_error(weft_command({"info", "vrwkv_tiny", "--set", "depht=3"}), 1, "depht");
  Json file = only_json(weft_command({"info", "--json", write_small_model(folder / "m.safetensors")}).out);
  EXPECT_EQ(file["classes"], 7);
  EXPECT_EQ(file["weight_bytes_in_file"], 4 * file["parameters"].get<std::int64_t>());
}

TEST(InfoCommand, CountsHugePictures) {
  Json json = only_json(weft_command({"info", "--json", "vrwkv_tiny", "--size", "65536"}).out);
  EXPECT_GT(json["macs"].get<double>(), 1e13);  // (65536 / 224)² × 1.169 G ≈ 1e14
}

TEST(ModelsCommand, ListsThePresets) {
  std::map<std::string, std::int64_t> parameters;
  for (const Json& json : json_lines(weft_command({"models", "--json"}).out)) {
    parameters[json["name"].get<std::string>()] = json["parameters"].get<std::int64_t>();
  }
  for (const Published& p : kPublished) EXPECT_EQ(parameters[p.preset], p.parameters);
  const Outcome outcome = weft_command({"models"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.out.find("334,881,768"), std::string::npos) << outcome.out;
}

TEST(InspectCommand, ShowsWhatIsInAModel) {
  const ScratchFolder folder;
  const std::string path = write_small_model(folder / "m.safetensors");
  Json json = only_json(weft_command({"inspect", "--json", path}).out);
  EXPECT_EQ(json["format"], "safetensors");
  EXPECT_EQ(json["family"], "vision_rwkv");
  EXPECT_EQ(json["config"]["num_classes"], 7);
  EXPECT_FALSE(json.contains("error"));
  const Outcome outcome = weft_command({"inspect", "--tensors", path});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("backbone.layers.1.att.key.weight"), std::string::npos) << outcome.out;
}

// The tensors of the small model without what makes it a model file of weft's.
void write_bare_tensors(const std::string& path, const std::string& without = "") {
  SafetensorsFile file;
  const ScratchFolder folder;
  file = read_safetensors(map_file(write_small_model(folder / "m.safetensors")));
  std::erase_if(file.tensors, [&](const auto& entry) { return entry.first == without; });
  write_safetensors(path, file.tensors, {{"note", "bare"}});
}

TEST(InspectCommand, TellsWhyAModelWasRecognised) {
  const ScratchFolder folder;
  write_bare_tensors(folder / "bare.safetensors");
  Json json = only_json(weft_command({"inspect", "--json", folder / "bare.safetensors"}).out);
  std::map<std::string, Json> findings;
  for (const Json& finding : json["findings"]) findings[finding["option"].get<std::string>()] = finding;
  EXPECT_EQ(findings["embed_dims"]["value"], "24");
  EXPECT_EQ(findings["embed_dims"]["assumed"], false);
  EXPECT_EQ(findings["wkv"]["assumed"], true);
  const Outcome outcome = weft_command({"inspect", folder / "bare.safetensors", "--set", "wkv=released_kernel"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("set by the user"), std::string::npos) << outcome.out;
}

TEST(InspectCommand, ShowsFilesThatAreNoModel) {
  const ScratchFolder folder;
  const Tensor values = Tensor::of(std::vector<float>{1, 2, 3}, {3});
  write_safetensors(folder / "other.safetensors", {{"some.weight", values}}, {{"author", "somebody"}});
  const Outcome outcome = weft_command({"inspect", "--tensors", folder / "other.safetensors"});
  expect_error(outcome, 1, "no family");
  EXPECT_NE(outcome.out.find("some.weight"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("author = somebody"), std::string::npos) << outcome.out;
  const Outcome json = weft_command({"inspect", "--json", folder / "other.safetensors"});
  expect_error(json, 1, "no family");
  EXPECT_EQ(only_json(json.out)["tensors"][0]["name"], "some.weight");
  EXPECT_TRUE(only_json(json.out).contains("error"));
}

TEST(InspectCommand, ShowsModelsWhoseTensorsDoNotFit) {
  const ScratchFolder folder;
  write_bare_tensors(folder / "holes.safetensors", "backbone.layers.1.att.key.weight");
  const Outcome outcome = weft_command({"inspect", "--json", folder / "holes.safetensors"});
  expect_error(outcome, 1, "backbone.layers.1.att.key.weight");
  Json json = only_json(outcome.out);
  EXPECT_EQ(json["family"], "vision_rwkv");
  EXPECT_FALSE(json["findings"].empty());
}

TEST(ConvertCommand, WritesAWholeModel) {
  const ScratchFolder folder;
  write_bare_tensors(folder / "bare.safetensors");
  write_text(folder / "labels.txt", "a\r\nb\nc\nd\ne\nf\ng\n\n");
  const std::string out = folder / "out.safetensors";
  Json json = only_json(weft_command({"convert", folder / "bare.safetensors", out, "--json", "--labels",
                                      folder / "labels.txt", "--mean", "1,2,3.5", "--std", "4,5,6", "--resize", "40",
                                      "--crop", "0", "--filter", "lanczos", "--set", "wkv=released_kernel"})
                            .out);
  EXPECT_EQ(json["labels"], 7);
  const Model model = Model::load(out);
  EXPECT_EQ(model.labels(), (std::vector<std::string>{"a", "b", "c", "d", "e", "f", "g"}));
  const Preprocess expected{
      .resize = 40, .crop = 0, .filter = Filter::kLanczos, .mean = {1, 2, 3.5F}, .std = {4, 5, 6}};
  EXPECT_EQ(model.preprocess(), expected);
  EXPECT_EQ(Json::parse(model.config())["wkv"], "released_kernel");
}

TEST(ConvertCommand, KeepsWhatIsNotGiven) {
  const ScratchFolder folder;
  const std::string in = write_small_model(folder / "in.safetensors");
  const std::string out = folder / "out.safetensors";
  const Outcome outcome = weft_command({"convert", in, out});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(Model::load(out).labels(), Model::load(in).labels());
  EXPECT_EQ(Model::load(out).config(), Model::load(in).config());
  const Image image = noise(32, 32, 3);
  EXPECT_EQ(Session(Model::load(out)).classify(image)[0].probability,
            Session(Model::load(in)).classify(image)[0].probability);
}

TEST(ConvertCommand, ChangesTheElementType) {
  const ScratchFolder folder;
  const std::string in = write_small_model(folder / "in.safetensors");
  for (const std::string dtype : {"f16", "bf16", "f32"}) {
    const std::string out = folder / (dtype + ".safetensors");
    EXPECT_EQ(weft_command({"convert", in, out, "--dtype", dtype}).code, 0);
    for (const auto& [name, tensor] : read_safetensors(map_file(out)).tensors) {
      EXPECT_EQ(name_of(tensor.dtype()), dtype) << name;
    }
    EXPECT_EQ(Model::load(out).parameter_count(), Model::load(in).parameter_count());
  }
}

TEST(ConvertCommand, RefusesWeightsThatF16CannotHold) {
  const ScratchFolder folder;
  const SafetensorsFile file = read_safetensors(map_file(write_small_model(folder / "in.safetensors")));
  NamedTensors tensors = file.tensors;
  for (auto& [name, tensor] : tensors) {
    if (name != "head.fc.bias") continue;
    tensor = tensor.clone();
    tensor.mutable_data<float>()[0] = 1e6F;  // above 65504
  }
  write_safetensors(folder / "large.safetensors", tensors, file.metadata);
  const std::string out = folder / "out.safetensors";
  expect_error(weft_command({"convert", folder / "large.safetensors", out, "--dtype", "f16"}), 1, "head.fc.bias");
  EXPECT_FALSE(std::filesystem::exists(out));
}

TEST(ConvertCommand, OverwritesOnlyWhenForced) {
  const ScratchFolder folder;
  const std::string in = write_small_model(folder / "in.safetensors");
  const std::string out = folder / "out.safetensors";
  write_text(out, "precious");
  expect_error(weft_command({"convert", in, out}), 1, "--force");
  EXPECT_EQ(read_text(out), "precious");
  EXPECT_EQ(weft_command({"convert", "--force", in, out}).code, 0);
  EXPECT_NO_THROW(Model::load(out));
  EXPECT_EQ(weft_command({"convert", "--force", in, in, "--dtype", "bf16"}).code, 0);  // over itself
  EXPECT_NO_THROW(Model::load(in));
}

TEST(ConvertCommand, Refuses) {
  const ScratchFolder folder;
  const std::string in = write_small_model(folder / "in.safetensors");
  const std::string out = folder / "out.safetensors";
  write_text(folder / "two.txt", "a\nb\n");
  expect_error(weft_command({"convert", in, out, "--labels", folder / "two.txt"}), 1, "7 classes");
  expect_error(weft_command({"convert", in, out, "--labels", folder / "none.txt"}), 1, "none.txt");
  expect_error(weft_command({"convert", in, out, "--labels", folder.path().string()}), 1, "folder");
  expect_error(weft_command({"convert", in, out, "--mean", "1,2"}), 2, "--mean");
  expect_error(weft_command({"convert", in, out, "--mean", "1,2,nan"}), 2, "--mean");
  expect_error(weft_command({"convert", in, out, "--std", "1,0,1"}), 1, "std");
  expect_error(weft_command({"convert", in, out, "--filter", "sinc"}), 1, "sinc");
  expect_error(weft_command({"convert", in, folder / "no/out.safetensors"}), 1, "out.safetensors");
  EXPECT_FALSE(std::filesystem::exists(out));
}

TEST(InfoCommand, DamagedModelsAreOneLine) {
  const ScratchFolder folder;
  const std::string good = read_text(write_small_model(folder / "good.safetensors"));
  std::vector<std::pair<std::string, std::string>> files = {{"empty", ""},
                                                            {"garbage", "this is no checkpoint"},
                                                            {"zip", std::string("PK\x03\x04") + good.substr(0, 400)},
                                                            {"pickle",
                                                             "\x80\x02"
                                                             "cos\nsystem\n(S'true'\ntR."},
                                                            {"header", std::string(8, '\xFF') + good.substr(8)},
                                                            {"half", good.substr(0, good.size() / 2)},
                                                            {"short", good.substr(0, good.size() - 1)},
                                                            {"long", good + "x"}};
  for (std::size_t i = 0; i < 200; i += 13) {  // flipped bits in the header
    std::string text = good;
    text[i] = static_cast<char>(text[i] ^ 0x10);
    files.emplace_back(fmt::format("flipped {}", i), std::move(text));
  }
  const std::string picture = folder / "a.tif";
  write_picture(picture, noise(8, 8, 1));
  for (const auto& [name, text] : files) {
    const std::string path = folder / name;
    write_text(path, text);
    for (const std::vector<std::string>& command :
         {std::vector<std::string>{"info", path}, {"inspect", path}, {"classify", "--model", path, picture}}) {
      const Outcome outcome = weft_command(command);
      if (name.starts_with("flipped") && outcome.code == 0) continue;  // a bit that nobody reads
      expect_error(outcome, 1, "");
    }
  }
  expect_error(weft_command({"inspect", folder.path().string()}), 1, "");
  expect_error(weft_command({"inspect", "/dev/null"}), 1, "");
}

}  // namespace
}  // namespace weft::testing
