#include "runtime/prepared.h"

#include <atomic>
#include <cstdlib>
#include <unordered_map>

#include "ops/isa.h"
#include "runtime/program.h"

namespace dagrt {
namespace {

std::atomic<size_t> bytes_in_use{0};

struct Registry {
  std::mutex mutex;
  std::unordered_map<std::string, std::weak_ptr<PreparedValue>> values;
};
Registry& registry() {
  static Registry* r = new Registry;  // outlives every program, also those that static objects hold
  return *r;
}

size_t limit() {
  if (const char* e = std::getenv("DAGRT_PREPARED_LIMIT")) {
    char* end = nullptr;
    unsigned long long n = std::strtoull(e, &end, 10);
    if (end != e && *end == 0) return size_t(n);
  }
  return SIZE_MAX;
}

bool fits(size_t bytes, const Device& device) {
  constexpr size_t small = size_t(64) << 20;  // below this the machine is not asked
  size_t used = bytes_in_use, most = limit();
  if (used > most || bytes > most - used) return false;
  const char* why = "";
  return (bytes < small && !std::getenv("DAGRT_MEMORY_LIMIT")) || bytes <= device.available(&why) / 2;
}

std::string key_of(const std::string& text, const std::vector<VariableRef>& sources, const Device& device) {
  std::string key;
  auto raw = [&](auto x) { key.append(reinterpret_cast<const char*>(&x), sizeof x); };
  raw(&device);
  raw(isa_in_use());
  for (const VariableRef& v : sources) raw(v.get());
  return key + text;
}

}  // namespace

PreparedValue::PreparedValue(std::string key, std::unique_ptr<Program> maker, std::vector<VariableRef> sources, size_t bytes,
                             Device& device)
    : key_(std::move(key)), maker_(std::move(maker)), sources_(std::move(sources)), bytes_(bytes), device_(device) {
  data_ = device_.take_memory(bytes_, "a prepared weight");
  bytes_in_use += bytes_;
}

PreparedValue::~PreparedValue() {
  device_.release(data_, bytes_ ? bytes_ : 1);
  bytes_in_use -= bytes_;
  Registry& r = registry();
  std::lock_guard<std::mutex> lock(r.mutex);
  auto it = r.values.find(key_);
  if (it != r.values.end() && it->second.expired()) r.values.erase(it);
}

bool PreparedValue::fresh() const { return made_at_ == state_of(sources_); }

void PreparedValue::make() {
  maker_->fill(data_);
  made_at_ = state_of(sources_);
}

PreparedRef prepared_value(const RecipeBook& book, const Recipe& recipe, const TensorType& type,
                           const std::vector<VariableRef>& variables, Device& device) {
  std::vector<VariableRef> sources;
  for (int64_t v : recipe.variables) sources.push_back(variables[size_t(v)]);
  std::string key = key_of(book.text(recipe), sources, device);
  PreparedRef made;  // outlives the lock, which its destructor takes
  Registry& r = registry();
  std::lock_guard<std::mutex> lock(r.mutex);
  auto it = r.values.find(key);
  if (it != r.values.end())
    if (PreparedRef found = it->second.lock()) return found;
  size_t bytes = size_t(type.bytes());
  if (!fits(bytes, device)) return nullptr;
  auto maker = std::make_unique<Program>(book.module(recipe), sources, device, Program::Part::maker);
  made = std::make_shared<PreparedValue>(key, std::move(maker), std::move(sources), bytes, device);
  if (made->sources().empty()) made->make();
  r.values[std::move(key)] = made;
  return made;
}

uint64_t state_of(const std::vector<VariableRef>& variables) {
  uint64_t sum = 0;
  for (const VariableRef& v : variables) sum += v->version();
  return sum;
}

size_t prepared_bytes_in_use() { return bytes_in_use.load(std::memory_order_relaxed); }

}  // namespace dagrt
