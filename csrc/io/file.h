// Files as memory: mapped for reading, written whole or not at all.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "base/error.h"

namespace dagrt {

/// What the system refused: `code` is its errno. Python sees an OSError.
struct FileError : Error {
  FileError(const std::string& path, const char* doing, int code);
  std::string path;
  int code;
};

/// A regular file's bytes, mapped for reading and private to this process. FileError where it cannot be opened.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const char* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const char* data_ = nullptr;
  size_t size_ = 0;
};

struct Piece {
  const void* data = nullptr;
  size_t bytes = 0;
};

/// Writes the pieces, one after another, so that `path` holds either all of them or what it held before: a new file in
/// the same folder, flushed to disk, renamed. A symbolic link is followed; an existing file's permissions are kept.
void write_atomically(const std::string& path, const std::vector<Piece>& pieces);

}  // namespace dagrt
