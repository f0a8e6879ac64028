#include "io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

namespace dagrt {
namespace {

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

/// Where the file itself is, behind symbolic links.
std::string target_of(const std::string& path) {
  struct stat s;
  if (::lstat(path.c_str(), &s) != 0 || !S_ISLNK(s.st_mode)) return path;
  char* real = ::realpath(path.c_str(), nullptr);
  if (!real) return path;
  std::string target = real;
  std::free(real);
  return target;
}

void write_all(int fd, const Piece& piece, const std::string& path) {
  const char* p = static_cast<const char*>(piece.data);
  for (size_t left = piece.bytes; left;) {
    ssize_t n = ::write(fd, p, left < (size_t(1) << 30) ? left : size_t(1) << 30);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw FileError(path, "cannot be written", errno);
    p += n;
    left -= size_t(n);
  }
}

}  // namespace

FileError::FileError(const std::string& p, const char* doing, int c)
    : Error(ErrorKind::value, p + ": " + doing + ": " + std::strerror(c)), path(p), code(c) {}

MappedFile::MappedFile(const std::string& path) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};  // a pipe must not make it wait
  if (file.fd < 0) throw FileError(path, "cannot be opened", errno);
  struct stat s;
  if (::fstat(file.fd, &s) != 0) throw FileError(path, "cannot be read", errno);
  if (S_ISDIR(s.st_mode)) throw FileError(path, "cannot be read", EISDIR);
  if (!S_ISREG(s.st_mode)) throw FileError(path, "is not a regular file", EINVAL);
  size_ = size_t(s.st_size);
  if (!size_) return;
  void* p = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (p == MAP_FAILED) throw FileError(path, "cannot be mapped", errno);
  data_ = static_cast<const char*>(p);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<char*>(data_), size_);
}

void write_atomically(const std::string& path, const std::vector<Piece>& pieces) {
  std::string target = target_of(path);
  struct stat before;
  bool exists = ::stat(target.c_str(), &before) == 0;
  if (exists && S_ISDIR(before.st_mode)) throw FileError(path, "cannot be written", EISDIR);
  if (exists && !S_ISREG(before.st_mode)) throw FileError(path, "is not a regular file", EINVAL);

  static std::atomic<unsigned> counter{0};
  std::string temporary;
  Descriptor file{-1};
  for (int attempt = 0; attempt < 100 && file.fd < 0; attempt++) {
    temporary = target + ".tmp" + std::to_string(::getpid()) + "." + std::to_string(counter++);
    file.fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file.fd < 0 && errno != EEXIST) throw FileError(path, "cannot be written", errno);
  }
  if (file.fd < 0) throw FileError(path, "cannot be written", EEXIST);
  try {
    if (exists) (void)!::fchmod(file.fd, before.st_mode & 07777);
    for (const Piece& piece : pieces) write_all(file.fd, piece, path);
    if (::fsync(file.fd) != 0) throw FileError(path, "cannot be written", errno);
    if (::rename(temporary.c_str(), target.c_str()) != 0) throw FileError(path, "cannot be written", errno);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  size_t slash = target.rfind('/');
  std::string folder = slash == std::string::npos ? "." : target.substr(0, slash + 1);
  Descriptor d{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (d.fd >= 0) ::fsync(d.fd);  // the name too; some file systems refuse it, and then the data is safe anyway
}

}  // namespace dagrt
