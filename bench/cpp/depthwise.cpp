// Depthwise convolutions, forward with bias and relu, and both gradients.
#include "layers.h"

namespace bench {

void add_rows() {
  for (Direction d : {Direction::forward, Direction::input, Direction::filter})
    for (const Layer& l : depthwise) add_row(std::string(name_of(d)) + "/" + l.text(), [=] { return direct(l, d); });
}

}  // namespace bench
