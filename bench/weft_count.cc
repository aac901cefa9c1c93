// One run of a model, for a program that counts instructions: `scripts/instructions` has valgrind count what happens
// inside counted_run, the second run. The first one packs weights, generates code and allocates memory.
//   weft_count MODEL DTYPE SIZE     the first two blocks of a preset, one picture of SIZE × SIZE pixels, one thread
#include <cstdint>
#include <cstdio>
#include <exception>
#include <random>
#include <string>

#include "weft/weft.h"

namespace {

weft::Tensor random_picture(std::int64_t channels, std::int64_t size) {
  weft::Tensor picture(weft::DType::kF32, {1, channels, size, size});
  std::mt19937 random(1);  // NOLINT: the same picture every time
  std::normal_distribution<float> normal;
  for (float& value : picture.mutable_data<float>()) value = normal(random);
  return picture;
}

weft::DType dtype_of(const std::string& name) {
  for (const weft::DType dtype : {weft::DType::kF32, weft::DType::kBF16, weft::DType::kI8}) {
    if (name == weft::name_of(dtype)) return dtype;
  }
  throw weft::Error("[weft_count] dtype: expected f32, bf16 or i8, got " + name);
}

}  // namespace

// Known to valgrind by this name.
extern "C" [[gnu::noinline]] void counted_run(const weft::Session& session, const weft::Tensor& picture) {
  (void)session.logits(picture);
}

int main(int argc, char** argv) try {
  if (argc != 4) throw weft::Error("usage: weft_count MODEL DTYPE SIZE");
  const weft::Model model = weft::Model::create(argv[1], /*seed=*/0, {.config = {{"depth", "2"}}});
  const weft::Session session(model, {.threads = 1, .dtype = dtype_of(argv[2])});
  const weft::Tensor picture = random_picture(model.in_channels(), std::stoll(argv[3]));
  (void)session.logits(picture);
  counted_run(session, picture);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
