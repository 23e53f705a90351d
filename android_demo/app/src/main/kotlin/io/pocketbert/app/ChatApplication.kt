/*
 * Holds the chat for as long as the process lives: screens come and go (a rotation), the open model stays.
 *
 * Another bot is another bundle in the assets, and another bot.tsv, which lists the bundles and what to say.
 */
package io.pocketbert.app

import android.app.Application
import android.content.ComponentCallbacks2
import android.os.Build
import io.pocketbert.chat.Bot
import io.pocketbert.chat.BundledModels
import io.pocketbert.chat.Chat
import io.pocketbert.chat.Journal
import io.pocketbert.chat.Models
import io.pocketbert.executorch.ExecuTorchEngine
import io.pocketbert.litert.LiteRtEngine
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.SupervisorJob
import java.io.File

open class ChatApplication : Application() {
    /** Started by the first screen that asks for it, not by whatever else starts the process. */
    open val chat: Chat by lazy { start(CoroutineScope(SupervisorJob() + Dispatchers.Default)) }

    /** Once nobody looks and the system is short of memory, the model goes; [ChatActivity] brings it back. */
    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        if (level >= ComponentCallbacks2.TRIM_MEMORY_BACKGROUND) chat.rest()
    }

    protected fun start(scope: CoroutineScope) =
        Chat(models(), Journal(File(filesDir, "conversation")), ::bot, scope, Dispatchers.IO).apply { start() }

    protected open fun models(): Models = BundledModels(
        names = { bot().models.keys.toList() },
        source = { name -> { path -> assets.open("$name/$path") } },
        engines = listOf(LiteRtEngine.kind(THREADS, File(cacheDir, "litert")), ExecuTorchEngine.kind(THREADS)),
        folder = File(filesDir, "models"),
        worker = Dispatchers.Default,
        device = Build.FINGERPRINT,
    )

    private fun bot() = Bot.read(assets.open("bot.tsv").use { it.readBytes().decodeToString() })

    private companion object {
        const val THREADS = 2 // a phone has as many large cores at least; more of them wait for each other at these lengths
    }
}
