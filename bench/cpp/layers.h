// Convolution layers of real models.
#pragma once
#include <cstdint>
#include <string>

#include "peers.h"

namespace bench {

struct Layer {
  const char* model;
  int64_t B, H, C, F, R, stride, pad, groups = 1;

  std::string text() const {
    auto n = [](int64_t i) { return std::to_string(i); };
    return std::string(model) + " " + n(B) + "x" + n(H) + "x" + n(H) + "x" + n(C) + " to " + n(F) + " by " + n(R) + "x" + n(R) +
           (stride > 1 ? " stride " + n(stride) : "");
  }
  int64_t P() const { return (H + 2 * pad - R) / stride + 1; }
};

inline constexpr Layer convolutions[] = {
    {"detector", 1, 224, 3, 64, 3, 1, 0},    {"resnet", 1, 224, 3, 64, 7, 2, 3},     {"detector", 1, 111, 64, 128, 3, 1, 0},
    {"detector", 1, 54, 128, 256, 3, 1, 0},  {"resnet", 1, 56, 64, 64, 3, 1, 1},     {"resnet", 1, 56, 64, 128, 3, 1, 1},
    {"resnet", 1, 56, 64, 128, 1, 1, 0},     {"resnet", 1, 56, 128, 128, 3, 1, 1},   {"resnet", 1, 56, 128, 256, 3, 1, 1},
    {"resnet", 1, 56, 256, 256, 3, 1, 1},    {"inception", 1, 56, 64, 64, 1, 1, 0},  {"inception", 1, 56, 64, 16, 1, 1, 0},
    {"inception", 1, 56, 96, 192, 3, 1, 1},  {"inception", 1, 56, 16, 32, 5, 1, 2},  {"inception", 1, 56, 48, 96, 5, 1, 2},
    {"inception", 1, 56, 256, 128, 1, 1, 0}, {"autoencoder", 8, 28, 1, 16, 3, 1, 0}, {"autoencoder", 8, 26, 16, 32, 3, 1, 0},
    {"autoencoder", 8, 12, 32, 32, 3, 1, 0}, {"autoencoder", 8, 18, 16, 1, 3, 1, 2}, {"autoencoder", 8, 10, 32, 16, 3, 1, 0},
    {"resnet50", 1, 56, 64, 256, 1, 1, 0},   {"resnet50", 1, 56, 256, 64, 1, 1, 0},  {"resnet50", 1, 56, 256, 128, 1, 2, 0},
    {"resnet50", 4, 56, 256, 128, 1, 2, 0},  {"resnet50", 1, 28, 256, 256, 3, 2, 1}, {"inception", 4, 56, 256, 128, 1, 1, 0},
    {"resnet50", 1, 28, 512, 128, 1, 1, 0},  {"resnet50", 1, 28, 128, 128, 3, 1, 1}, {"resnet50", 1, 14, 1024, 256, 1, 1, 0},
    {"resnet50", 1, 14, 256, 1024, 1, 1, 0}, {"resnet50", 1, 14, 256, 256, 3, 1, 1}, {"resnet50", 1, 7, 512, 2048, 1, 1, 0},
    {"resnet50", 1, 7, 2048, 512, 1, 1, 0},  {"resnet50", 1, 7, 512, 512, 3, 1, 1},  {"resnet50", 8, 7, 512, 512, 3, 1, 1},
    {"mobilenet", 1, 224, 3, 32, 3, 2, 1},   {"mobilenet", 1, 28, 192, 32, 1, 1, 0}, {"mobilenet", 1, 7, 320, 1280, 1, 1, 0}};

inline constexpr Layer depthwise[] = {
    {"mobilenet", 1, 112, 32, 32, 3, 1, 1, 32},     {"mobilenet", 1, 112, 96, 96, 3, 2, 1, 96},
    {"mobilenet", 1, 56, 144, 144, 3, 1, 1, 144},   {"mobilenet", 1, 56, 144, 144, 3, 2, 1, 144},
    {"mobilenet", 1, 28, 192, 192, 3, 1, 1, 192},   {"mobilenet", 1, 14, 576, 576, 3, 1, 1, 576},
    {"mobilenet", 1, 7, 960, 960, 3, 1, 1, 960},    {"efficientnet", 1, 28, 240, 240, 5, 1, 2, 240},
    {"efficientnet", 1, 14, 672, 672, 5, 1, 2, 672}};

enum class Direction { forward, input, filter };
inline const char* name_of(Direction d) {
  return d == Direction::forward ? "forward" : d == Direction::input ? "input gradient" : "filter gradient";
}

/// The layer by the direct sum (direct.cpp).
Work direct(const Layer& l, Direction d);

}  // namespace bench
