/*
 * What org.pytorch.executorch.Module does in native code, for a plain JVM: four C functions over the ExecuTorch runtime of the
 * Python wheel.
 *
 * Takes a .pte file. Returns the float outputs of a method for one int32 input. A result other than 0 is an executorch::runtime::Error.
 * Leaves out: other types, several inputs, calls at the same time.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

namespace et = executorch::runtime;

/* The wheel's own threadpool.h asks for a header of pthreadpool that the wheel leaves out. */
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
} // namespace executorch::extension::threadpool

using et::Error;
using et::Result;

namespace {

/* Reads each segment into memory of its own, as FileDataLoader of the Android library does. */
class FileLoader final : public et::DataLoader {
 public:
  static constexpr size_t kAlignment = 16; // what flatbuffers and tensors ask for

  explicit FileLoader(const char* path) : file_(::open(path, O_RDONLY)) {
    struct stat found {};
    if (file_ >= 0 && ::fstat(file_, &found) == 0) size_ = found.st_size;
  }
  FileLoader(const FileLoader&) = delete;
  ~FileLoader() override {
    if (file_ >= 0) ::close(file_);
  }

  Result<et::FreeableBuffer> load(size_t offset, size_t size, const SegmentInfo&) const override {
    void* data = std::aligned_alloc(kAlignment, (size + kAlignment - 1) / kAlignment * kAlignment);
    if (data == nullptr) return Error::MemoryAllocationFailed;
    if (read(offset, size, data) != Error::Ok) {
      std::free(data);
      return Error::AccessFailed;
    }
    return et::FreeableBuffer(data, size, [](void*, void* memory, size_t) { std::free(memory); });
  }

  Error load_into(size_t offset, size_t size, const SegmentInfo&, void* buffer) const override { return read(offset, size, buffer); }

  Result<size_t> size() const override {
    if (file_ < 0) return Error::AccessFailed;
    return size_;
  }

 private:
  Error read(size_t offset, size_t size, void* data) const {
    for (size_t done = 0; done < size;) {
      ssize_t count = ::pread(file_, static_cast<char*>(data) + done, size - done, offset + done);
      if (count <= 0) return Error::AccessFailed;
      done += count;
    }
    return Error::Ok;
  }

  int file_;
  size_t size_ = 0;
};

/* Memory of any size, freed with the allocator or on reset: a method keeps its parts in one, kernels get scratch space from another. */
class Heap final : public et::MemoryAllocator {
 public:
  Heap() : MemoryAllocator(0, nullptr) {}
  ~Heap() override { reset(); }

  void* allocate(size_t size, size_t alignment = kDefaultAlignment) override {
    void* data = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (data != nullptr) blocks_.push_back(data);
    return data;
  }

  void reset() override {
    for (void* block : blocks_) std::free(block);
    blocks_.clear();
  }

 private:
  std::vector<void*> blocks_;
};

/* A loaded method with the memory that it was planned into. */
struct Loaded {
  Heap constants, temporary;
  std::vector<std::vector<uint8_t>> planned;
  std::vector<et::Span<uint8_t>> spans;
  std::unique_ptr<et::HierarchicalAllocator> activations;
  std::unique_ptr<et::MemoryManager> memory;
  std::unique_ptr<et::Method> method;
};

struct Module {
  explicit Module(const char* path) : loader(path) {}

  FileLoader loader;
  std::unique_ptr<et::Program> program;
  std::map<std::string, std::unique_ptr<Loaded>> methods;
};

Error load(Module& module, const std::string& name) {
  if (module.methods.count(name)) return Error::Ok;
  auto meta = module.program->method_meta(name.c_str());
  if (!meta.ok()) return meta.error();
  auto loaded = std::make_unique<Loaded>();
  for (size_t i = 0; i < meta->num_memory_planned_buffers(); ++i) {
    loaded->planned.emplace_back(meta->memory_planned_buffer_size(i).get());
    loaded->spans.emplace_back(loaded->planned.back().data(), loaded->planned.back().size());
  }
  loaded->activations = std::make_unique<et::HierarchicalAllocator>(et::Span<et::Span<uint8_t>>(loaded->spans.data(), loaded->spans.size()));
  loaded->memory = std::make_unique<et::MemoryManager>(&loaded->constants, loaded->activations.get(), &loaded->temporary);
  auto method = module.program->load_method(name.c_str(), loaded->memory.get());
  if (!method.ok()) return method.error();
  loaded->method = std::make_unique<et::Method>(std::move(method.get()));
  module.methods[name] = std::move(loaded);
  return Error::Ok;
}

Error execute(Module& module, const char* name, int32_t* data, et::ArrayRef<int32_t> sizes, float* output, int capacity, et::Span<int> counts) {
  if (Error error = load(module, name); error != Error::Ok) return error;
  et::Method& method = *module.methods[name]->method;
  std::vector<executorch::aten::SizesType> shape(sizes.begin(), sizes.end());
  executorch::aten::TensorImpl input(executorch::aten::ScalarType::Int, shape.size(), shape.data(), data);
  if (Error error = method.set_input(executorch::aten::Tensor(&input), 0); error != Error::Ok) return error;
  if (Error error = method.execute(); error != Error::Ok) return error;
  if (method.outputs_size() > counts.size()) return Error::NotSupported;
  for (size_t i = 0; i < method.outputs_size(); ++i) {
    auto tensor = method.get_output(i).toTensor();
    if (tensor.scalar_type() != executorch::aten::ScalarType::Float || tensor.numel() > capacity) return Error::NotSupported;
    output = std::copy_n(tensor.const_data_ptr<float>(), tensor.numel(), output);
    capacity -= tensor.numel();
    counts[i] = tensor.numel();
  }
  return Error::Ok;
}

} // namespace

extern "C" {

int host_open(const char* path, int threads, Module** opened) {
  et::runtime_init();
  if (threads > 0) executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(threads);
  auto module = std::make_unique<Module>(path);
  auto program = et::Program::load(&module->loader, et::Program::Verification::Minimal);
  if (!program.ok()) return static_cast<int>(program.error());
  module->program = std::make_unique<et::Program>(std::move(program.get()));
  *opened = module.release();
  return 0;
}

int host_load_method(Module* module, const char* name) { return static_cast<int>(load(*module, name)); }

/* `output` has room for `capacity` numbers of all outputs, one behind the other; `counts` becomes how many each of them has. */
int host_execute(Module* module, const char* name, int32_t* data, int32_t* sizes, int rank, float* output, int capacity, int* counts, int outputs) {
  return static_cast<int>(execute(*module, name, data, {sizes, static_cast<size_t>(rank)}, output, capacity, {counts, static_cast<size_t>(outputs)}));
}

void host_close(Module* module) { delete module; }
}
