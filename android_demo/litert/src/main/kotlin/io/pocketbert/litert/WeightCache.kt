/*
 * The file of packed weights: filled under a private name, and renamed when it is whole, so that neither a kill nor a second
 * engine that opens the artifact at the same time meets half a file.
 *
 * Leaves out: hashing it. LiteRT packs again what was cut off; for the rest it is trusted, like every file of the app's own
 * folder.
 */
package io.pocketbert.litert

import java.io.File
import java.io.IOException
import java.io.RandomAccessFile

internal class WeightCache(private val folder: File, key: String) {
    private val file = File(folder, "$key.xnnpack")

    /**
     * Opens a model with the cache file: the one that is there, or a new one that is kept if `open` succeeds. The file
     * is null where the folder cannot be written: then nothing is shared, and nothing breaks.
     */
    fun <T> filling(open: (File?) -> T): T {
        if (file.exists()) return open(file)
        val fresh = try {
            folder.mkdirs()
            leftBehind().forEach(File::delete)
            File.createTempFile(file.name, UNFINISHED, folder).also(File::delete) // LiteRT wants to make it itself
        } catch (_: IOException) {
            return open(null)
        }
        try {
            return open(fresh).also { keep(fresh) }
        } finally {
            fresh.delete()
        }
    }

    private fun keep(fresh: File) {
        if (fresh.length() == 0L) return
        RandomAccessFile(fresh, "rw").use { it.fd.sync() }
        fresh.renameTo(file)
    }

    /** What a kill left, as long as the finished file. */
    private fun leftBehind() = folder.listFiles { it.name.startsWith(file.name) && it.name.endsWith(UNFINISHED) }.orEmpty()

    private companion object {
        const val UNFINISHED = ".part"
    }
}
