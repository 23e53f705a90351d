/*
 * A bundle kept in a folder of the app, with its artifact as a file: engines open paths, and assets have none.
 *
 * Takes a bundle from anywhere, and a format. Copies once what an engine of that format needs. Every file is compared with its
 * hash while it is copied, synced, and renamed into place when it is whole; the bundle that was there before goes last. So a
 * full disk, a damaged source or a kill at any moment leaves what was there. Leaves out: downloading.
 */
package io.pocketbert.core

import java.io.File
import java.io.FileOutputStream
import java.io.IOException

/** A bundle in a folder of its own, and its artifact of one format as the file that an engine opens. */
class InstalledBundle internal constructor(val bundle: Bundle, val artifact: Artifact, folder: File) {
    val file = File(folder, artifact.path)
}

/** Keeps one bundle, for one or several formats, in a folder that is its own. `freeBytes` tells the room on that folder's disk. */
class BundleStore(private val folder: File, private val freeBytes: (File) -> Long = File::getUsableSpace) {
    /**
     * The bundle of `source`, copied unless it is there. Reads no more than the manifest if it is. Throws [BundleException]
     * saying what is missing, damaged or has no room; [installed] then still gives what was there.
     */
    @Synchronized
    fun install(source: BundleSource, format: String): InstalledBundle {
        val bundle = Bundle.open(source)
        val home = File(folder, bundle.id)
        val missing = needed(bundle, bundle.manifest.artifact(format)).filterNot { isThere(home, it) }
        if (missing.isNotEmpty()) copy(bundle, missing, home)
        val manifest = File(home, Manifest.FILE) // comes last: a folder without it is no bundle yet
        if (!manifest.exists()) write(manifest) { it.write(bundle.manifestFile) }
        folder.listFiles().orEmpty().filter { it != home }.forEach { it.deleteRecursively() }
        return opened(bundle.inFolder(home), home, format)
    }

    /** The bundle that is there, whatever the source holds by now; null if none is there for this format. */
    @Synchronized
    fun installed(format: String): InstalledBundle? = folder.listFiles().orEmpty().firstNotNullOfOrNull { home ->
        try {
            opened(Bundle.open(home), home, format).takeIf { found -> needed(found.bundle, found.artifact).all { isThere(home, it) } }
        } catch (_: BundleException) {
            null
        }
    }

    private fun opened(bundle: Bundle, home: File, format: String) = InstalledBundle(bundle, bundle.manifest.artifact(format), home)

    private fun needed(bundle: Bundle, artifact: Artifact) =
        listOf(bundle.manifest.tokenizerTables, bundle.manifest.golden) + artifact.files

    /** Files are renamed into place when they are whole, so one that is there was once right; its size shows later cuts. */
    private fun isThere(home: File, file: BundleFile) = File(home, file.path).length() == file.bytes

    private fun copy(bundle: Bundle, files: List<BundleFile>, home: File) {
        home.mkdirs()
        val (needed, free) = files.sumOf { it.bytes } to freeBytes(home)
        if (needed > free) throw BundleException("there is no room for the model: ${megabytes(needed)} are needed, ${megabytes(free)} are free")
        for (file in files) {
            write(File(home, file.path)) { output -> bundle.read(file) { block, size -> output.write(block, size) } }
        }
    }

    private fun write(file: File, content: (Output) -> Unit) {
        val part = File("${file.path}$UNFINISHED")
        try {
            file.parentFile.mkdirs()
            FileOutputStream(part).use { stream ->
                content(Output(file, stream))
                stream.fd.sync()
            }
            if (!part.renameTo(file)) throw IOException("it cannot be renamed")
        } catch (problem: IOException) {
            throw refusal(file, problem)
        } finally {
            part.delete()
        }
    }

    /** Tells a disk that takes no more from a source that gives no more. */
    private class Output(private val file: File, private val stream: FileOutputStream) {
        fun write(block: ByteArray, size: Int = block.size) = try {
            stream.write(block, 0, size)
        } catch (problem: IOException) {
            throw refusal(file, problem)
        }
    }

    private companion object {
        const val UNFINISHED = ".part"
        const val MEGABYTE = 1_000_000.0

        fun megabytes(bytes: Long) = "%.1f MB".format(java.util.Locale.ROOT, bytes / MEGABYTE)

        fun refusal(file: File, problem: IOException) =
            BundleException("${file.name} cannot be kept on this device, free some space and try again: ${problem.message}", problem)
    }
}
