// The mixers of the RWKV family.
#include "core/format.h"
#include "onnx/lowering.h"

namespace weft::onnx_export {

void lower(const BiWkv&, Lowering& to) {
  fail<UnsupportedError>("onnx", "bi_wkv cannot be told in ONNX operators yet (at {})", to.place());
}

// A single step, as the official code writes it.
void lower(const CausalWkv&, Lowering& to) {
  const std::int64_t tokens = to.in_shape(0)[1];
  require<UnsupportedError>(tokens == 1, "onnx",
                            "causal_wkv of one token at a time can be told in ONNX operators, got {} (at {})", tokens,
                            to.place());
  const auto one = [&](std::int64_t value) { return to.model().integers(std::span(&value, 1)); };
  const auto part = [&](std::int64_t i) { return to.add("Slice", {to.in(4), one(i), one(i + 1), one(1)}); };
  const std::string k = to.in(0), v = to.in(1), numerator = part(0), denominator = part(1), exponent = part(2);
  struct Sum {
    std::string numerator, denominator, exponent;
  };
  // The state times e^{aged}, and the token times e^{own}.
  const auto sum = [&](const std::string& aged, const std::string& own) {
    const std::string largest = to.add("Max", {aged, own});
    const std::string before = to.add("Exp", {to.add("Sub", {aged, largest})});
    const std::string self = to.add("Exp", {to.add("Sub", {own, largest})});
    return Sum{to.add("Add", {to.add("Mul", {before, numerator}), to.add("Mul", {self, v})}),
               to.add("Add", {to.add("Mul", {before, denominator}), self}), largest};
  };
  const Sum met = sum(exponent, to.add("Add", {to.in(3), k}));
  const Sum next = sum(to.add("Sub", {exponent, to.in(2)}), k);
  to.result_of(0, "Div", {met.numerator, met.denominator});
  to.result_of(1, "Concat", {next.numerator, next.denominator, next.exponent}, {{"axis", std::int64_t{1}}});
}

}  // namespace weft::onnx_export
