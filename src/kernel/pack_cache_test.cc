#include <gtest/gtest.h>

#include <stdexcept>

#include "kernel/kernel.h"

namespace weft {
namespace {

TEST(PackCache, PacksOncePerLayout) {
  PackCache packs;
  const Tensor weight = Tensor::zeros({DType::kF32, {4, 4}});
  int packed = 0;
  const auto pack = [&] {
    ++packed;
    return weight;
  };
  packs.get(weight, "a", pack);
  packs.get(weight, "a", pack);
  EXPECT_EQ(packed, 1);
  packs.get(weight, "b", pack);
  EXPECT_EQ(packed, 2);
}

TEST(PackCache, PacksNothingThatThereIsNoRoomFor) {
  std::int64_t room = 60;
  PackCache packs([&](std::int64_t bytes) {
    if (bytes > room) throw std::runtime_error("no room");
  });
  const Tensor weight = Tensor::zeros({DType::kF32, {4, 4}});
  int packed = 0;
  const auto pack = [&] {
    ++packed;
    return weight;
  };
  EXPECT_THROW(packs.get(weight, "a", pack), std::runtime_error);
  EXPECT_EQ(packed, 0);
  room = 64;
  packs.get(weight, "a", pack);
  room = 0;
  packs.get(weight, "a", pack);  // is there
  EXPECT_EQ(packed, 1);
}

}  // namespace
}  // namespace weft
