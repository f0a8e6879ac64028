#include "harness.h"

#include <time.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "kernels/kernel.h"
#include "peers.h"

namespace bench {
namespace {

struct Options {
  int threads = 1, rounds = 5;
  double turn_ms = 20;
} options;

/// Of the clock, not of the processor: a guest's processor time jumps by what the host took.
double call_ns(const std::function<void()>& call) {
  auto now = [] {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) * 1e9 + double(t.tv_nsec);
  };
  const double start = now();
  call();
  return now() - start;
}

#if defined(__AVX512F__)
constexpr int width = 64, sums = 24;
#elif defined(__AVX2__)
constexpr int width = 32, sums = 12;
#else
constexpr int width = 16, sums = 8;
#endif
typedef float vf __attribute__((vector_size(width)));
constexpr int64_t fma_steps = 20000;

/// Independent multiply-adds in registers, on every thread.
void multiply_add(const dagrt::Stream& s) {
  s.parallel(s.threads, 1e6, [](int64_t, char*) {
    float seed = 1e-3f;
    asm volatile("" : "+m"(seed));
    vf a = seed - vf{}, b = 0.999f - vf{}, sum[sums];
    for (int i = 0; i < sums; i++) sum[i] = float(i) - vf{};
    for (int64_t k = 0; k < fma_steps; k++) {
#pragma GCC unroll 24
      for (int i = 0; i < sums; i++) sum[i] = sum[i] * b + a;
      asm volatile("" : "+x"(a), "+x"(b));
    }
    vf total{};
    for (int i = 0; i < sums; i++) total += sum[i];
    asm volatile("" ::"x"(total));
  });
}
double multiply_add_flops() { return 2.0 * double(fma_steps) * sums * (width / 4) * options.threads; }

/// Reads `from`, `passes` times, and writes what it reads to `to` (or back), in
/// pieces side by side as kernels do. Numbers, not zeros: lines of zeros are
/// written past the caches at twice the rate of others (AMD Zen 4).
struct Traffic {
  Floats from, to;
  size_t write;
  int passes, streams = 1;
  bool past = false;
  explicit Traffic(const Work& w)
      : from(values(int64_t(up(w.read)), 9)), to(w.in_place ? 0 : up(w.written)), write(up(w.written)), passes(w.read_passes) {}
  static size_t up(double bytes) { return (size_t(bytes / 4) + 1023) / 1024 * 1024; }
  /// From one place, or from four side by side, written through the caches or
  /// past them, in turns: whichever this memory likes best.
  void run(const dagrt::Stream& s) {
    past ? move<true>(s) : move<false>(s);
    streams = streams == 1 ? 4 : 1;
    if (streams == 1) past = !past && !to.empty();
  }

 private:
  template <bool past> static void put(vf* there, vf v) {
#if defined(__AVX512F__)
    if (past) return _mm512_stream_ps(reinterpret_cast<float*>(there), reinterpret_cast<__m512>(v));
#elif defined(__AVX2__)
    if (past) return _mm256_stream_ps(reinterpret_cast<float*>(there), reinterpret_cast<__m256>(v));
#endif
    *there = v;
  }
  template <bool past> void move(const dagrt::Stream& s) {
    constexpr int64_t units = 16, block = 64;
    for (int pass = 0; pass < passes; pass++)
      s.parallel(units, 1e6, [&](int64_t unit, char*) {
        const int64_t reads = int64_t(from.size()) / (units * block),
                      writes = pass + 1 < passes ? 0 : int64_t(write) / (units * block);
        auto at = [&](int64_t blocks, int64_t i) {
          const int64_t of_stream = blocks / streams, stream = i / streams < of_stream ? i % streams : -1;
          return (unit * blocks + (stream < 0 ? i : stream * of_stream + i / streams)) * block;
        };
        vf sum[4] = {}, piece[256 / width] = {};
        for (int64_t i = 0, w = 0; i < reads; i++) {
          float* here = from.data() + at(reads, i);
#pragma GCC unroll 16
          for (int j = 0; j < 256 / width; j++) {
            piece[j] = *reinterpret_cast<const vf*>(here + j * (width / 4));
            sum[j % 4] += piece[j];
          }
          for (; w * reads < writes * (i + 1); w++) {
            float* there = to.empty() ? here : to.data() + at(writes, w);
#pragma GCC unroll 16
            for (int j = 0; j < 256 / width; j++) put<past>(reinterpret_cast<vf*>(there + j * (width / 4)), piece[j]);
          }
        }
        for (vf& t : sum) asm volatile("" ::"x"(t));
      });
  }
};

/// The time that one call in a hundred stays below (of few calls: the least).
/// The least of many would be a lie: clocks of virtual machines jump back now
/// and then.
double least_of(std::vector<double>& ns, size_t from = 0) {
  auto first = ns.begin() + int64_t(from);
  const int64_t n = ns.end() - first, at = n / 100 + (n >= 20);
  std::nth_element(first, first + at, ns.end());
  return first[at];
}

struct Timed {
  const std::function<void()>* call;
  std::vector<double> ns;

  double turn() {
    const size_t before = ns.size();
    double all = 0;
    for (int i = 0; i < 2 || (all < options.turn_ms * 1e6 && i < 20000); i++) {
      const double t = call_ns(*call);
      all += t;
      ns.push_back(t);
    }
    if (options.threads > 1) {  // pools of others spin for a while behind their last work
      timespec rest{0, 25'000'000};
      nanosleep(&rest, nullptr);
    }
    return least_of(ns, before);
  }
  double least() { return least_of(ns); }
  double median() {
    std::nth_element(ns.begin(), ns.begin() + int64_t(ns.size() / 2), ns.end());
    return ns[ns.size() / 2];
  }
};

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return 1e9;
  double worst = 0, largest = 1e-30;
  for (size_t i = 0; i < a.size(); i++) {
    worst = std::max(worst, std::fabs(double(a[i]) - double(b[i])));
    largest = std::max(largest, std::fabs(double(a[i])));
    if (std::isnan(a[i]) || std::isnan(b[i])) return 1e9;
  }
  return worst / largest;
}

void measure(benchmark::State& state, const std::function<Work()>& make) {
  dagrt::FlushDenormals flush;
  Work work = make();
  work.dagrt.call();
  const std::vector<float> ours = work.dagrt.result ? work.dagrt.result() : std::vector<float>();
  std::vector<Side*> sides{&work.dagrt};
  std::string label;
  auto same = [&](const Side& side, const std::vector<float>& a, const std::vector<float>& b) {
    const double d = difference(a, b);
    if (d <= work.tolerance) return true;
    char text[64];
    std::snprintf(text, sizeof text, "%s differs by %.1e; ", side.name.c_str(), d);
    label += text;
    return false;
  };
  if (work.expected) same(work.dagrt, *work.expected, ours);
  for (Side& peer : work.peers) {
    if (!peer.call) continue;
    try {
      peer.call();
      if (same(peer, ours, peer.result())) sides.push_back(&peer);
    } catch (const std::exception& e) {
      label += peer.name + ": " + std::string(e.what()).substr(0, 80) + "; ";
    }
  }
  Memory memory;
  Traffic traffic(work);
  const std::function<void()> peak = [&] { multiply_add(memory.stream()); }, move = [&] { traffic.run(memory.stream()); };
  std::vector<Timed> timed;
  for (Side* s : sides) timed.push_back({&s->call, {}});
  Timed fma{&peak, {}}, bytes{&move, {}};
  size_t first = 0;
  for (auto _ : state) {
    double ours_ns = 0;
    for (size_t i = 0; i < timed.size(); i++) {
      const size_t at = (first + i) % timed.size();
      const double ns = timed[at].turn();
      if (at == 0) ours_ns = ns;
    }
    first++;
    fma.turn();
    if (work.read + work.written > 0) bytes.turn();
    state.SetIterationTime(ours_ns * 1e-9);
  }
  const double flops_per_ns = multiply_add_flops() / fma.least();
  const double moved = work.read * work.read_passes + work.written;
  const double fma_ns = work.flops / flops_per_ns, bytes_ns = moved > 0 ? bytes.least() : 0, ns = timed[0].least();
  auto& count = state.counters;
  count["us"] = ns / 1e3, count["median_us"] = timed[0].median() / 1e3;
  if (work.flops > 0) count["gflops"] = work.flops / ns, count["of_peak"] = fma_ns / ns;
  if (moved > 0) count["gbs"] = moved / ns;
  count["peak_gflops"] = flops_per_ns;
  if (moved > 0) count["memory_gbs"] = moved / bytes_ns;
  count["share"] = std::max(fma_ns, bytes_ns) / ns;
  count["memory_bound"] = bytes_ns > fma_ns;
  double best = 1e30;
  for (size_t i = 1; i < timed.size(); i++) {
    count[sides[i]->name + "_us"] = timed[i].least() / 1e3;
    count[sides[i]->name + "_median_us"] = timed[i].median() / 1e3;
    best = std::min(best, timed[i].least());
  }
  if (timed.size() > 1) count["ratio"] = best / ns;
  for (const auto& [name, value] : work.more) count[name] = value;
  state.SetLabel(label);
}

/// --name=value of our own, taken out of the arguments.
bool take(int& argc, char** argv, const char* name, std::string& value) {
  const std::string start = std::string("--") + name + "=";
  for (int i = 1; i < argc; i++) {
    if (std::strncmp(argv[i], start.c_str(), start.size()) != 0) continue;
    value = argv[i] + start.size();
    for (int j = i; j + 1 < argc; j++) argv[j] = argv[j + 1];
    argc--;
    return true;
  }
  return false;
}

}  // namespace

Floats values(int64_t n, int64_t seed, float scale) {
  Floats v(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++) {
    uint32_t h = uint32_t(i) * 0x9E3779B9u + uint32_t(seed) * 0x85EBCA6Bu;
    h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
    h = (h ^ (h >> 13)) * 0xC2B2AE35u;
    v[size_t(i)] = float(double(h ^ (h >> 16)) / 2147483648.0 - 1.0) * scale;
  }
  return v;
}

int threads() { return options.threads; }

void add_row(const std::string& name, std::function<Work()> make) {
  benchmark::RegisterBenchmark(name.c_str(), [make = std::move(make)](benchmark::State& s) { measure(s, make); })
      ->Iterations(options.rounds)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

Memory::Memory(size_t workspace, size_t scratch) : workspace_(workspace + 64) {
  stream_.threads = options.threads;
  stream_.scratch_bytes = (scratch + 63) / 64 * 64;
  scratch_.resize(stream_.scratch_bytes * size_t(options.threads) + 64);
  stream_.scratch = scratch_.data();
}

std::vector<std::unique_ptr<Framework>>& frameworks() {
  static std::vector<std::unique_ptr<Framework>> all;
  return all;
}

}  // namespace bench

int main(int argc, char** argv) {
  using namespace bench;
  std::string text;
  if (take(argc, argv, "threads", text)) options.threads = std::max(1, std::atoi(text.c_str()));
  if (take(argc, argv, "rounds", text)) options.rounds = std::max(1, std::atoi(text.c_str()));
  if (take(argc, argv, "turn_ms", text)) options.turn_ms = std::atof(text.c_str());
  if (take(argc, argv, "isa", text)) dagrt::choose_isa(text.c_str());
  dagrt::set_default_threads(options.threads);
  std::string found;
  for (auto& f : frameworks()) f->set_threads(options.threads), found += (found.empty() ? "" : ", ") + f->describe();
  benchmark::AddCustomContext("isa", dagrt::name_of(dagrt::chosen_isa));
  benchmark::AddCustomContext("threads", std::to_string(options.threads));
  benchmark::AddCustomContext("peers", found.empty() ? "none" : found);
  add_rows();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
